// Helpers of the guest tests.
//
// A probe is a function that returns what it observed as a comparable value. It runs natively first
// and in the cell second, and both must have seen the same:
//
//     TEST_CASE("a null pointer raises the same signal") { same([] { return fault(read_null); }); }
//
// Every test case has a process to itself (main.cpp), and the cell starts when something first
// needs it, so that what runs before is truly native. Assertions belong outside the cell and to the
// first thread. Code inside only observes and returns what it saw.
#pragma once

// A test that crashes is reported by the process that waits for it; handlers of Catch's would be in
// the way of the signals under test.
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>
#include <string>
#include <thread>
#include <vector>
#include <xos/cell.hpp>

namespace xos::test {

using lines = std::vector<std::string>;

/// What `--xos-mode` asked for.
mode wanted_mode();
/// What `--xos-transport` asked for.
transport wanted_transport();
/// Whether `--xos-native-children` was given.
bool wants_native_children();

/// The mode that this machine's cell has, for what differs between them by design. Starts the cell.
mode cell_mode();

/// Starts the cell unless it runs.
void ensure_cell();

/// The probe's answer in the cell.
template <class Probe>
auto in_cell(Probe probe) {
    ensure_cell();
    scoped_entry inside;
    return probe();
}

/// Natively and in the cell, which must agree; the native answer.
template <class Probe>
auto same(Probe probe) {
    const auto native = probe();
    const auto cell = in_cell(probe);
    CHECK(cell == native);
    return native;
}

/// How a process ended, and what it wrote to standard error.
struct ended {
    std::string status;  ///< "exit 0", "signal 11", "core 11" (where cores are written), "hung"
    std::string errors;
    friend bool operator==(const ended&, const ended&) = default;
};
std::ostream& operator<<(std::ostream& out, const ended& e);

/// `body` in a forked child, which exits with what it returns. A child that hangs is killed.
ended in_child(const std::function<int()>& body);

/// A wait status in words.
std::string describe(int status);
/// waitpid that gives up, and kills the child, after thirty seconds.
std::string status_of(int pid);

/// Whether a thread of this process waits in Linux (state S of /proc).
bool asleep(int thread);

/// Yields until `condition` holds, ten seconds at most; whether it does. Uses no signal and no
/// timer.
template <class Condition>
bool eventually(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::yield();
    }
    return true;
}

/// "17: sentence" of the std::system_error that `body` throws, "nothing" if it throws none; the
/// number is the errno that comes closest to its code.
std::string thrown_by(const std::function<void()>& body);
/// Only its number, 0 if none.
int errno_of(const std::function<void()>& body);

/// "name=value", negative values of system calls as "name=-1 errno".
std::string show(const std::string& name, long value);
std::string outcome_of(const std::string& name, long value, int error);
/// Of a call, with the errno it leaves.
template <class Call>
std::string outcome_of(const std::string& name, Call call) {
    errno = 0;
    const long value = static_cast<long>(call());
    return outcome_of(name, value, errno);
}

/// `n` threads run `body(index)` at the same time; all are joined.
void on_threads(unsigned n, const std::function<void(unsigned)>& body);

}  // namespace xos::test
