/// lxmert for C++17: the C interface of lxmert.h with owners, exceptions and vectors.
///
/// Everything is an inline call of the C function that its comment names; lxmert.h tells what that allocates, which threads may call
/// it and how it fails. A failure is thrown as lxmert::Error. Structs of options and results are C's own.
///
///     lxmert::Model model("lxmert-vqa-q8_0.gguf");
///     lxmert::Session session(model);
///     session.encode_pixels(rgb, width, height);
///     for (const lxmert::Answer &answer : session.ask("what color is the shape?", 3))
///         std::cout << (answer.text ? answer.text : "(no text)") << ' ' << answer.softmax << '\n';

#ifndef LXMERT_HPP
#define LXMERT_HPP

#include "lxmert.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace lxmert {

/// A call that failed: its status, and as what() the line that says what is wrong and what to do.
class Error : public std::runtime_error {
public:
    Error(lxmert_status status, const char *text) : std::runtime_error(text), status_(status) {}

    lxmert_status status() const noexcept { return status_; }

private:
    lxmert_status status_;
};

/// Throws what a C function of the calling thread returned, unless that is LXMERT_OK.
inline void check(lxmert_status status)
{
    if (status != LXMERT_OK) throw Error(status, lxmert_last_error());
}

/// A string as C takes it. One that holds a NUL would be another string there, and is refused.
inline const char *c_string(const std::string &text)
{
    if (text.find('\0') != std::string::npos) {
        throw Error(LXMERT_INVALID_ARGUMENT, "a string holds a NUL, which would end it: expected text");
    }
    return text.c_str();
}

using Answer = lxmert_answer;
using Inputs = lxmert_inputs;
using MemoryPlan = lxmert_memory_plan;
using ModelInfo = lxmert_model_info;
using SessionInfo = lxmert_session_info;
using SessionOptions = lxmert_session_options;
using Tensor = lxmert_tensor;

/// A struct of zeros, which stand for defaults, with its struct_size: `auto options = lxmert::sized<lxmert::SessionOptions>();`.
template <typename Struct> Struct sized() noexcept
{
    return lxmert_sized<Struct>();
}

/// One GGUF file, shared by any number of sessions on any threads. It can be moved, but not copied; one that was moved from is good
/// for nothing but being destroyed or assigned to.
class Model {
public:
    /// lxmert_model_open.
    explicit Model(const char *path)
    {
        lxmert_model *model = nullptr;
        check(lxmert_model_open(path, &model));
        model_.reset(model);
    }

    explicit Model(const std::string &path) : Model(c_string(path)) {}

    /// lxmert_model_from_memory: with a copy of the bytes, or without one, when they must outlive the model and its sessions.
    static Model from_memory(const void *bytes, std::size_t size, bool copy)
    {
        lxmert_model *model = nullptr;
        check(lxmert_model_from_memory(bytes, size, copy, &model));
        return Model(model);
    }

    /// lxmert_model_from_loader.
    static Model from_loader(const lxmert_loader &loader)
    {
        lxmert_model *model = nullptr;
        check(lxmert_model_from_loader(&loader, &model));
        return Model(model);
    }

    /// lxmert_model_get_info.
    ModelInfo info() const
    {
        auto info = sized<ModelInfo>();
        check(lxmert_model_get_info(get(), &info));
        return info;
    }

    /// lxmert_model_name: null if the file tells none; lives as long as the model.
    const char *name() const
    {
        const char *text = nullptr;
        check(lxmert_model_name(get(), &text));
        return text;
    }

    /// lxmert_model_verify: throws for a damaged tensor, and for a file that holds no checksums.
    void verify() const { check(lxmert_model_verify(get())); }

    /// lxmert_model_label: the text of an answer; lives as long as the model.
    const char *label(std::size_t index) const
    {
        const char *text = nullptr;
        check(lxmert_model_label(get(), index, &text));
        return text;
    }

    /// lxmert_model_tokenize: [CLS] and [SEP] included.
    std::vector<std::uint32_t> tokenize(const char *question) const
    {
        std::size_t count = 0;
        const lxmert_status status = lxmert_model_tokenize(get(), question, nullptr, 0, &count);
        // Without room, the limit is what tells how much there must be.
        if (status != LXMERT_LIMIT) check(status);
        std::vector<std::uint32_t> ids(count);
        check(lxmert_model_tokenize(get(), question, ids.data(), ids.size(), &count));
        return ids;
    }

    std::vector<std::uint32_t> tokenize(const std::string &question) const { return tokenize(c_string(question)); }

    /// lxmert_plan: what a session would take, with default options or the given ones.
    MemoryPlan plan() const { return plan(nullptr); }
    MemoryPlan plan(const SessionOptions &options) const { return plan(&options); }

    /// The handle, for C functions. It stays this object's.
    lxmert_model *get() const noexcept { return model_.get(); }

private:
    explicit Model(lxmert_model *model) noexcept : model_(model) {}

    MemoryPlan plan(const SessionOptions *options) const
    {
        auto plan = sized<MemoryPlan>();
        check(lxmert_plan(get(), options, &plan));
        return plan;
    }

    struct Free {
        void operator()(lxmert_model *model) const noexcept { lxmert_model_free(model); }
    };
    std::unique_ptr<lxmert_model, Free> model_;
};

/// What runs a model. One thread uses it at a time; only cancel() and info() may be called meanwhile. It keeps what it needs of its
/// model, which may be destroyed before. It can be moved, but not copied.
class Session {
public:
    /// lxmert_session_create, with default options or the given ones.
    explicit Session(const Model &model) : Session(model, nullptr) {}
    Session(const Model &model, const SessionOptions &options) : Session(model, &options) {}

    /// lxmert_encode_pixels: 8-bit red, green and blue; the stride is in bytes, 0 for rows without gaps.
    void encode_pixels(const std::uint8_t *rgb, std::uint32_t width, std::uint32_t height, std::size_t stride = 0)
    {
        check(lxmert_encode_pixels(get(), rgb, width, height, stride));
    }

    /// lxmert_encode_regions: features [regions, feature_size] and boxes [regions, box_size].
    void encode_regions(const float *features, const float *boxes, std::size_t regions)
    {
        check(lxmert_encode_regions(get(), features, boxes, regions));
    }

    /// lxmert_ask into room of the caller's, for runs that allocate as little as C's; returns how many answers there are.
    std::size_t ask(const char *question, Answer *answers, std::size_t capacity)
    {
        std::size_t count = 0;
        check(lxmert_ask(get(), question, answers, capacity, &count));
        return count;
    }

    /// lxmert_ask: the best answers, best first. Their texts live as long as the session.
    std::vector<Answer> ask(const char *question, std::size_t most)
    {
        std::vector<Answer> answers(std::min(most, info().label_count));
        answers.resize(ask(question, answers.data(), answers.size()));
        return answers;
    }

    std::vector<Answer> ask(const std::string &question, std::size_t most) { return ask(c_string(question), most); }

    /// lxmert_ask_tokens into room of the caller's; returns how many answers there are. Allocates nothing.
    std::size_t ask_tokens(const std::uint32_t *ids, std::size_t id_count, Answer *answers, std::size_t capacity)
    {
        std::size_t count = 0;
        check(lxmert_ask_tokens(get(), ids, id_count, answers, capacity, &count));
        return count;
    }

    /// lxmert_run: a batch of raw tensors.
    void run(const Inputs &inputs) { check(lxmert_run(get(), &inputs)); }

    /// lxmert_output: numbers that are the session's, until it computes again.
    Tensor output(const char *name) const
    {
        auto tensor = sized<Tensor>();
        check(lxmert_output(get(), name, &tensor));
        return tensor;
    }

    Tensor output(const std::string &name) const { return output(c_string(name)); }

    /// lxmert_session_set_time_limit: for each call from now on; zero for none.
    void set_time_limit(std::chrono::microseconds limit)
    {
        if (limit.count() < 0) throw Error(LXMERT_INVALID_ARGUMENT, "the time limit is negative: expected 0 or more");
        check(lxmert_session_set_time_limit(get(), static_cast<std::uint64_t>(limit.count())));
    }

    /// lxmert_session_cancel: from any thread. The call in progress throws an Error of LXMERT_CANCELLED on its own thread.
    void cancel() { check(lxmert_session_cancel(get())); }

    /// lxmert_session_last_error: the text of the last failed call on any thread.
    std::string last_error() const
    {
        std::array<char, 1024> text{};
        check(lxmert_session_last_error(get(), text.data(), text.size()));
        return text.data();
    }

    /// lxmert_session_get_info.
    SessionInfo info() const
    {
        auto info = sized<SessionInfo>();
        check(lxmert_session_get_info(get(), &info));
        return info;
    }

    /// The handle, for C functions. It stays this object's.
    lxmert_session *get() const noexcept { return session_.get(); }

private:
    Session(const Model &model, const SessionOptions *options)
    {
        lxmert_session *session = nullptr;
        check(lxmert_session_create(model.get(), options, &session));
        session_.reset(session);
    }

    struct Free {
        void operator()(lxmert_session *session) const noexcept { lxmert_session_free(session); }
    };
    std::unique_ptr<lxmert_session, Free> session_;
};

} // namespace lxmert

#endif
