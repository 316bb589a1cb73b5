// Fibers in words.
#include <cxxabi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <typeinfo>

#include "libxos/sched/core.hpp"

namespace xos::sched::detail {

namespace {

std::string name_of(const fiber_state& f) {
    std::string text = "fiber " + std::to_string(f.id);
    if (f.name[0]) text += std::string(" \"") + f.name + "\"";
    return text;
}

std::string address(const void* p) {
    char text[32];
    std::snprintf(text, sizeof text, "%p", p);
    return text;
}

}  // namespace

std::string core::dump(bool nothing_runs) const {
    std::string text;
    const auto known = [&](const void* p) {
        const fiber_state* found = nullptr;
        for_each_region([&](const stack_region& r) {
            if (const fiber_state* f = r.find(p)) found = f;
        });
        return found;
    };
    for_each_region([&](const stack_region& r) {
        for (std::size_t i = 0; i < r.slots(); i++) {
            const fiber_state& f = r.state_of(i);
            if (!f.alive.load(std::memory_order_acquire)) continue;
            text += name_of(f);
            const char* const what = f.waits_for.load(std::memory_order_relaxed);
            const void* const on = f.waits_on.load(std::memory_order_relaxed);
            if (f.joiner.load(std::memory_order_relaxed) == finished) {
                text += ": has ended, and nobody has joined it";
            } else if (!what) {
                text += f.context.load(std::memory_order_relaxed) ? ": ready" : ": runs";
            } else {
                text += std::string(": waits for ") + what;
                if (const fiber_state* other = on ? known(on) : nullptr)
                    text += " " + name_of(*other);
                else if (on)
                    text += " " + address(on);
                if (const void* holder = nothing_runs ? holder_of(what, on) : nullptr) {
                    const fiber_state* const who = known(holder);
                    text += ", held by " + (who ? name_of(*who) : std::string("a thread"));
                }
            }
            text += "\n";
        }
    });
    return text;
}

void report_unhandled(const fiber_state& f) noexcept {
    std::string what = "something that is no std::exception";
    try {
        std::rethrow_exception(f.thrown);
    } catch (const std::exception& e) {
        int status = 0;
        const std::unique_ptr<char, decltype(&std::free)> type(
            abi::__cxa_demangle(typeid(e).name(), nullptr, nullptr, &status), std::free);
        what = std::string(type ? type.get() : typeid(e).name()) + ": " + e.what();
    } catch (...) {
    }
    const std::string text =
        "xos::sched: " + name_of(f) + ": nobody joins it, and it threw " + what + "\n";
    (void)!write(STDERR_FILENO, text.data(), text.size());
    std::terminate();
}

}  // namespace xos::sched::detail
