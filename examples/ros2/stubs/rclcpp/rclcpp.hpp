// As much of rclcpp as the node needs to be compiled and called without ROS: topics and services are functions that a test calls.

#ifndef STUBS_RCLCPP_HPP
#define STUBS_RCLCPP_HPP

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>

namespace rclcpp {

// For tests: called by ok(), which the node asks in the middle of a run.
inline std::function<void()> on_ok;

inline bool ok()
{
    if (on_ok) on_ok();
    return true;
}

using ParameterValue = std::variant<std::int64_t, std::string>;

struct NodeOptions {
    std::map<std::string, ParameterValue> parameters;
};

struct SensorDataQoS {};

enum class CallbackGroupType { MutuallyExclusive, Reentrant };

struct CallbackGroup {
    using SharedPtr = std::shared_ptr<CallbackGroup>;
};

struct SubscriptionOptions {
    CallbackGroup::SharedPtr callback_group;
};

template <typename Message> struct Subscription {
    using SharedPtr = std::shared_ptr<Subscription>;
    std::function<void(std::shared_ptr<const Message>)> callback;
};

template <typename Type> struct Service {
    using SharedPtr = std::shared_ptr<Service>;
    std::function<void(std::shared_ptr<typename Type::Request>, std::shared_ptr<typename Type::Response>)> callback;
};

struct Logger {};

class Node {
public:
    Node(const std::string &, const NodeOptions &options) : options_(options) {}
    virtual ~Node() = default;

    template <typename Value> Value declare_parameter(const std::string &name, const Value &value)
    {
        const auto given = options_.parameters.find(name);
        return given == options_.parameters.end() ? value : std::get<Value>(given->second);
    }

    CallbackGroup::SharedPtr create_callback_group(CallbackGroupType) { return std::make_shared<CallbackGroup>(); }

    template <typename Message, typename Callback>
    typename Subscription<Message>::SharedPtr
    create_subscription(const std::string &topic, const SensorDataQoS &, Callback callback, const SubscriptionOptions &)
    {
        auto subscription = std::make_shared<Subscription<Message>>(Subscription<Message>{std::move(callback)});
        made_[topic] = subscription;
        return subscription;
    }

    template <typename Type, typename Callback>
    typename Service<Type>::SharedPtr create_service(const std::string &name, Callback callback)
    {
        auto service = std::make_shared<Service<Type>>(Service<Type>{std::move(callback)});
        made_[name] = service;
        return service;
    }

    Logger get_logger() const { return {}; }

    // For tests: sends to a subscription, or calls a service.
    template <typename Message> void publish(const std::string &topic, std::shared_ptr<const Message> message)
    {
        std::static_pointer_cast<Subscription<Message>>(made_.at(topic))->callback(std::move(message));
    }

    template <typename Type> typename Type::Response call(const std::string &name, const typename Type::Request &request)
    {
        auto response = std::make_shared<typename Type::Response>();
        auto copy = std::make_shared<typename Type::Request>(request);
        std::static_pointer_cast<Service<Type>>(made_.at(name))->callback(copy, response);
        return *response;
    }

private:
    NodeOptions options_;
    std::map<std::string, std::shared_ptr<void>> made_;
};

} // namespace rclcpp

#define RCLCPP_INFO(logger, ...) (static_cast<void>(logger), std::printf(__VA_ARGS__), std::printf("\n"))

#endif
