// Helpers of the scheduler's tests.
#pragma once

#define CATCH_CONFIG_NO_POSIX_SIGNALS
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>
#include <xos/sched.hpp>

namespace xos::sched::test {

/// Of this run: `--seed=N`, else drawn. A test that uses it puts it into its message.
std::uint64_t seed();
/// What a machine of its own speed can do: 1 natively, less where it is emulated or sanitized.
unsigned scaled(unsigned n);
/// Whether it runs natively and without sanitizers.
bool at_full_speed();

/// "signal 6", "exit 0" or "hung", and what was written to standard error, of `body` in a child.
struct ended {
    std::string status, errors;
};
ended in_child(const std::function<void()>& body);

/// The code of the std::system_error that `body` throws; 0 if none.
template <class F>
std::error_code code_of(F body) {
    try {
        body();
    } catch (const std::system_error& e) {
        return e.code();
    }
    return {};
}

/// Processor time of this process, in nanoseconds.
std::int64_t processor_time();

}  // namespace xos::sched::test
