// The fields of std_msgs/Header that the node passes on.

#ifndef STUBS_HEADER_HPP
#define STUBS_HEADER_HPP

#include <string>

namespace std_msgs::msg {

struct Header {
    std::string frame_id;
};

} // namespace std_msgs::msg

#endif
