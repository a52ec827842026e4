// Calls the ROS node as its topic and service would:
//
//     node MODEL.gguf PICTURE.ppm QUESTION

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <rclcpp_components/register_node_macro.hpp>
#include <sensor_msgs/msg/image.hpp>

#include "lxmert_ros/srv/ask.hpp"

extern "C" {
#include "ppm.h"
}

using lxmert_ros::srv::Ask;
using sensor_msgs::msg::Image;

// An image whose rows have gaps, as those of cameras may.
static Image image_of(const ppm_image &picture, const char *encoding)
{
    Image image;
    image.header.frame_id = encoding;
    image.encoding = encoding;
    image.width = picture.width;
    image.height = picture.height;
    image.step = 3 * picture.width + 5;
    image.data.resize(std::size_t{image.step} * image.height);
    for (std::size_t y = 0; y < image.height; ++y) {
        for (std::size_t x = 0; x < image.width; ++x) {
            const std::uint8_t *from = picture.rgb + 3 * (y * image.width + x);
            std::uint8_t *to = image.data.data() + y * image.step + 3 * x;
            for (int c = 0; c < 3; ++c) to[c] = from[image.encoding == "bgr8" ? 2 - c : c];
        }
    }
    return image;
}

static Ask::Response ask(rclcpp::Node &node, const std::string &question, std::uint32_t most = 0)
{
    Ask::Request request;
    request.question = question;
    request.most = most;
    return node.call<Ask>("ask", request);
}

// Sends an image and asks about it; prints the best answer, or what went wrong.
static void show(rclcpp::Node &node, const Image &image, const std::string &question)
{
    node.publish<Image>("image", std::make_shared<const Image>(image));
    const Ask::Response response = ask(node, question);
    std::printf("%s: %s\n", response.image.frame_id.c_str(),
                response.success ? response.answers.at(0).c_str() : response.error.c_str());
}

// Destroys a node in the middle of an answer; prints how that ended.
static void destroy_during_an_answer(std::unique_ptr<rclcpp::Node> node, const std::string &question)
{
    std::atomic<bool> is_answering{false};
    std::atomic<bool> is_ending{false};
    rclcpp::on_ok = [&] {
        is_answering = true;
        while (!is_ending) std::this_thread::yield();
        // The destructor is under way, and must wait.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    };
    Ask::Response response;
    std::thread thread([&, called = node.get()] {
        response = ask(*called, question);
    });
    while (!is_answering) std::this_thread::yield();
    is_ending = true;
    node.reset();
    thread.join();
    rclcpp::on_ok = nullptr;
    std::printf("%s\n", response.success ? "answered" : response.error.c_str());
}

int main(int argc, char **argv)
{
    ppm_image picture;
    if (argc != 4 || ppm_read(argv[2], &picture) != nullptr) return 2;
    rclcpp::NodeOptions options;
    options.parameters["model"] = std::string(argv[1]);
    options.parameters["threads"] = std::int64_t{1};
    // Far more than the clock can count.
    options.parameters["time_limit_ms"] = std::numeric_limits<std::int64_t>::max();
    auto node = make_component(options);

    std::printf("%s\n", ask(*node, argv[3]).error.c_str());
    Image image = image_of(picture, "rgb8");
    show(*node, image, argv[3]);
    show(*node, image_of(picture, "bgr8"), argv[3]);
    const Ask::Response all = ask(*node, argv[3], std::numeric_limits<std::uint32_t>::max());
    std::printf("%zu answers, %zu scores\n", all.answers.size(), all.scores.size());
    image.encoding = "mono8";
    show(*node, image, argv[3]);
    image = image_of(picture, "rgb8");
    image.data.pop_back();
    image.height += 1;
    show(*node, image, argv[3]);
    node->publish<Image>("image", std::make_shared<const Image>(image_of(picture, "rgb8")));
    destroy_during_an_answer(std::move(node), argv[3]);
    ppm_free(&picture);
    return 0;
}
