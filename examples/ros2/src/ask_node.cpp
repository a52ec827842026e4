// A node that answers questions about the images of a topic.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <lxmert.hpp>
#include <rclcpp/rclcpp.hpp>
#include <rclcpp_components/register_node_macro.hpp>
#include <sensor_msgs/msg/image.hpp>

#include "lxmert_ros/srv/ask.hpp"

namespace lxmert_ros {

using Image = sensor_msgs::msg::Image;
using srv::Ask;

namespace {

// A long question does not hold up the end of the process, nor that of the node.
bool is_over(void *ending) noexcept
{
    return !rclcpp::ok() || static_cast<const std::atomic<bool> *>(ending)->load();
}

// A size that is a parameter; 0 stands for the library's default.
std::size_t size_parameter(rclcpp::Node &node, const char *name)
{
    const std::int64_t value = node.declare_parameter<std::int64_t>(name, 0);
    if (value < 0) throw std::invalid_argument(std::string(name) + " is negative: expected 0 or more");
    return static_cast<std::size_t>(value);
}

// The limit of a call; a parameter beyond what the clock counts is as good as the most that it does.
std::chrono::microseconds limit_parameter(rclcpp::Node &node)
{
    using std::chrono::milliseconds;
    constexpr auto most = std::chrono::duration_cast<milliseconds>(std::chrono::microseconds::max());
    return std::min(most, milliseconds(size_parameter(node, "time_limit_ms")));
}

lxmert::SessionOptions options_of(rclcpp::Node &node, std::atomic<bool> &ending)
{
    auto options = lxmert::sized<lxmert::SessionOptions>();
    options.memory_budget = size_parameter(node, "memory_budget");
    options.threads = size_parameter(node, "threads");
    options.abort = is_over;
    options.abort_user_data = &ending;
    return options;
}

// A message tells its own sizes, which may not be true.
void check_image(const Image &image)
{
    if (image.encoding != "rgb8" && image.encoding != "bgr8") {
        throw std::runtime_error("the image's encoding is " + image.encoding + ", expected rgb8 or bgr8");
    }
    const std::size_t row = std::size_t{3} * image.width;
    if (image.width == 0 || image.height == 0 || image.step < row
        || image.data.size() / image.step < image.height) {
        throw std::runtime_error("the image's data does not have the size that its header tells");
    }
}

} // namespace

class AskNode : public rclcpp::Node {
public:
    explicit AskNode(const rclcpp::NodeOptions &options)
        : rclcpp::Node("lxmert", options),
          model_(declare_parameter<std::string>("model", "")),
          session_(model_, options_of(*this, ending_))
    {
        session_.set_time_limit(limit_parameter(*this));

        // In a group of their own, images still come in while a question is answered, under an executor of several threads.
        rclcpp::SubscriptionOptions of_images;
        of_images.callback_group = create_callback_group(rclcpp::CallbackGroupType::MutuallyExclusive);
        images_ = create_subscription<Image>(
            "image", rclcpp::SensorDataQoS(),
            [this](Image::ConstSharedPtr image) {
                const std::lock_guard<std::mutex> lock(mutex_);
                latest_ = std::move(image);
            },
            of_images);
        service_ = create_service<Ask>(
            "ask", [this](std::shared_ptr<Ask::Request> request, std::shared_ptr<Ask::Response> response) {
                answer(*request, *response);
            });
        RCLCPP_INFO(get_logger(), "lxmert %s, %s", lxmert_version(), session_.info().lowering);
    }

    // Gives up the answer that is under way, and waits for its thread.
    ~AskNode() override
    {
        ending_ = true;
        service_.reset();
        images_.reset();
        const std::scoped_lock locks(answering_, mutex_);
    }

private:
    void answer(const Ask::Request &request, Ask::Response &response)
    {
        const std::lock_guard<std::mutex> lock(answering_);
        try {
            encode_latest();
            response.image = encoded_->header;
            for (const lxmert::Answer &best : session_.ask(request.question, request.most == 0 ? 1 : request.most)) {
                response.answers.push_back(best.text ? best.text : std::to_string(best.label));
                response.scores.push_back(best.softmax);
            }
            response.success = true;
        } catch (const std::exception &error) {
            response.success = false;
            response.error = error.what();
        }
    }

    // Images that nobody asks about are not encoded, and one that is asked about several times is encoded once.
    void encode_latest()
    {
        Image::ConstSharedPtr image;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            image = latest_;
        }
        if (!image) throw std::runtime_error("no image has come yet");
        if (image == encoded_) return;
        encoded_.reset();
        check_image(*image);
        if (image->encoding == "rgb8") {
            session_.encode_pixels(image->data.data(), image->width, image->height, image->step);
        } else {
            session_.encode_pixels(swapped(*image), image->width, image->height);
        }
        encoded_ = image;
    }

    // The pixels of a bgr8 image as rgb8, without gaps between rows.
    const std::uint8_t *swapped(const Image &image)
    {
        rgb_.resize(std::size_t{3} * image.width * image.height);
        std::uint8_t *to = rgb_.data();
        for (std::size_t y = 0; y < image.height; ++y) {
            const std::uint8_t *from = image.data.data() + y * image.step;
            for (std::size_t x = 0; x < image.width; ++x, from += 3, to += 3) {
                to[0] = from[2];
                to[1] = from[1];
                to[2] = from[0];
            }
        }
        return rgb_.data();
    }

    std::atomic<bool> ending_{false};
    lxmert::Model model_;
    lxmert::Session session_; // with what follows, under answering_
    std::vector<std::uint8_t> rgb_;
    Image::ConstSharedPtr encoded_;

    std::mutex answering_; // locked before the other, where both are

    std::mutex mutex_;
    Image::ConstSharedPtr latest_; // under mutex_

    rclcpp::Subscription<Image>::SharedPtr images_;
    rclcpp::Service<Ask>::SharedPtr service_;
};

} // namespace lxmert_ros

RCLCPP_COMPONENTS_REGISTER_NODE(lxmert_ros::AskNode)
