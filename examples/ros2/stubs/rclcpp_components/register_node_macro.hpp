// A function that makes the component, in place of the factory that a container of components loads.

#ifndef STUBS_REGISTER_NODE_MACRO_HPP
#define STUBS_REGISTER_NODE_MACRO_HPP

#include <memory>

#include <rclcpp/rclcpp.hpp>

std::unique_ptr<rclcpp::Node> make_component(const rclcpp::NodeOptions &options);

#define RCLCPP_COMPONENTS_REGISTER_NODE(Component)                              \
    std::unique_ptr<rclcpp::Node> make_component(const rclcpp::NodeOptions &options) \
    {                                                                           \
        return std::make_unique<Component>(options);                            \
    }

#endif
