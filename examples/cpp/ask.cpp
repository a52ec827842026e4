// Asks a model about a picture:
//
//     ask MODEL.gguf PICTURE.ppm QUESTION...
//
// The model must cut its regions from pixels, as models/easy-vqa/easy-vqa-q8_0.gguf does.

#include <lxmert.hpp>

#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Picture {
    std::uint32_t width = 0;
    std::uint32_t height = 0;
    std::vector<std::uint8_t> rgb; // row by row from the top left
};

// A number of a PPM file's header. Spaces and comments may stand before it.
std::uint32_t read_number(std::istream &file, std::uint32_t max)
{
    while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    std::uint32_t number = 0;
    if (!(file >> number) || number == 0 || number > max) throw std::runtime_error("its header is not a picture's");
    return number;
}

// Binary PPM (P6) with 8 bits per channel: the simplest format there is.
Picture read_ppm(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("the file cannot be opened");
    if (file.get() != 'P' || file.get() != '6') throw std::runtime_error("not a binary PPM file (P6)");

    // Larger sides are refused before memory is asked for: a header is easily wrong, and a picture never that large.
    constexpr std::uint32_t max_side = 16384;
    Picture picture;
    picture.width = read_number(file, max_side);
    picture.height = read_number(file, max_side);
    if (read_number(file, 65535) != 255) throw std::runtime_error("not of 8 bits per channel");
    file.get(); // the one space before the pixels

    picture.rgb.resize(std::size_t{3} * picture.width * picture.height);
    file.read(reinterpret_cast<char *>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
    if (!file) throw std::runtime_error("the file ends before the picture does");
    return picture;
}

void ask_all(const char *model_path, const char *picture_path, const std::vector<std::string> &questions)
{
    const lxmert::Model model(model_path);
    auto options = lxmert::sized<lxmert::SessionOptions>();
    options.threads = 1;
    const lxmert::MemoryPlan plan = model.plan(options);
    std::cout << "lowering " << plan.lowering << ", " << plan.total << " bytes\n";

    lxmert::Session session(model, options);
    const Picture picture = read_ppm(picture_path);
    // The image is encoded once, however many questions follow.
    session.encode_pixels(picture.rgb.data(), picture.width, picture.height);

    std::cout << std::fixed;
    for (const std::string &question : questions) {
        std::cout << question << '\n';
        for (const lxmert::Answer &answer : session.ask(question, 3)) {
            // A model's file may hold no texts; then an answer is known by its number.
            std::cout << "  " << (answer.text ? answer.text : "answer " + std::to_string(answer.label)) << "  "
                      << std::setprecision(2) << 100.0 * static_cast<double>(answer.softmax) << " %  (score "
                      << std::setprecision(4) << answer.logit << ")\n";
        }
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 4) {
        std::cerr << "usage: " << argv[0] << " MODEL.gguf PICTURE.ppm QUESTION...\n";
        return 2;
    }
    try {
        ask_all(argv[1], argv[2], {argv + 3, argv + argc});
        return 0;
    } catch (const lxmert::Error &error) {
        std::cerr << error.what() << " (" << lxmert_status_name(error.status()) << ")\n";
    } catch (const std::exception &error) {
        std::cerr << argv[2] << ": " << error.what() << '\n';
    }
    return 1;
}
