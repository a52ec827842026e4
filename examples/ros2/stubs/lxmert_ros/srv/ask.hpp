// What rosidl makes of srv/Ask.srv, as far as the node uses it.

#ifndef STUBS_ASK_HPP
#define STUBS_ASK_HPP

#include <cstdint>
#include <string>
#include <vector>

#include <std_msgs/msg/header.hpp>

namespace lxmert_ros::srv {

struct Ask {
    struct Request {
        std::string question;
        std::uint32_t most = 0;
    };
    struct Response {
        bool success = false;
        std::string error;
        std::vector<std::string> answers;
        std::vector<float> scores;
        std_msgs::msg::Header image;
    };
};

} // namespace lxmert_ros::srv

#endif
