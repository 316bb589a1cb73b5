#include "tests/guest/support.hpp"

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <ostream>
#include <system_error>

namespace xos::test {

void ensure_cell() {
    static std::mutex once;
    std::lock_guard guard(once);
    if (!started())
        start({.mode = wanted_mode(),
               .transport = wanted_transport(),
               .native_children = wants_native_children()});
}

mode cell_mode() {
    ensure_cell();
    return current_mode();
}

std::ostream& operator<<(std::ostream& out, const ended& e) {
    return out << e.status << (e.errors.empty() ? "" : ", standard error:\n") << e.errors;
}

std::string describe(int status) {
    if (WIFEXITED(status)) return "exit " + std::to_string(WEXITSTATUS(status));
    if (!WIFSIGNALED(status)) return "status " + std::to_string(status);
    return (WCOREDUMP(status) ? "core " : "signal ") + std::to_string(WTERMSIG(status));
}

bool asleep(int thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto end = text.rfind(')');
    return end != text.npos && text.compare(end, 3, ") S") == 0;
}

std::string status_of(int pid) {
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    pollfd wait{handle, POLLIN, 0};
    int ready;
    do ready = poll(&wait, 1, 30000);
    while (ready < 0 && errno == EINTR);
    close(handle);
    if (ready == 0) kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return ready == 0 ? "hung" : describe(status);
}

ended in_child(const std::function<int()>& body) {
    const int errors = memfd_create("stderr", 0);
    const int pid = fork();
    if (pid == 0) {
        dup2(errors, 2);
        int result = 125;
        try {
            result = body();
        } catch (const std::exception& e) {
            dprintf(2, "exception: %s\n", e.what());
        }
        _exit(result);
    }
    ended e{status_of(pid), {}};
    char text[8192];
    const ssize_t n = pread(errors, text, sizeof text, 0);
    if (n > 0) e.errors.assign(text, static_cast<std::size_t>(n));
    close(errors);
    return e;
}

std::string thrown_by(const std::function<void()>& body) {
    try {
        body();
    } catch (const std::system_error& e) {
        return std::to_string(e.code().default_error_condition().value()) + ": " + e.what();
    }
    return "nothing";
}

int errno_of(const std::function<void()>& body) {
    try {
        body();
    } catch (const std::system_error& e) {
        return e.code().default_error_condition().value();
    }
    return 0;
}

std::string show(const std::string& name, long value) {
    return name + "=" + std::to_string(value);
}

std::string outcome_of(const std::string& name, long value, int error) {
    return show(name, value) + (value < 0 ? std::string(" ") + strerrorname_np(error) : "");
}

void on_threads(unsigned n, const std::function<void(unsigned)>& body) {
    std::vector<std::thread> all;
    for (unsigned i = 0; i < n; i++) all.emplace_back([&body, i] { body(i); });
    for (auto& t : all) t.join();
}

}  // namespace xos::test
