#include "bench/supervisor.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <optional>
#include <system_error>

namespace xos::bench {

namespace {

volatile sig_atomic_t stop_wanted = 0;

/// SIGINT and SIGTERM arrive in pauses of ppoll() only.
class stop_signals {
  public:
    stop_signals() {
        sigset_t blocked;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGINT);
        sigaddset(&blocked, SIGTERM);
        sigprocmask(SIG_BLOCK, &blocked, &before_);
        struct sigaction action {};
        action.sa_handler = [](int) { stop_wanted = 1; };
        sigaction(SIGINT, &action, &interrupt_);
        sigaction(SIGTERM, &action, &terminate_);
    }
    ~stop_signals() { restore(); }
    stop_signals(const stop_signals&) = delete;
    stop_signals& operator=(const stop_signals&) = delete;

    void restore() const {
        sigaction(SIGINT, &interrupt_, nullptr);
        sigaction(SIGTERM, &terminate_, nullptr);
        sigprocmask(SIG_SETMASK, &before_, nullptr);
    }
    const sigset_t& outside() const { return before_; }

  private:
    sigset_t before_{};
    struct sigaction interrupt_ {
    }, terminate_{};
};

double seconds() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

constexpr char ended = '+', failed = '-';

void write_all(int to, const std::string& text) {
    for (std::size_t done = 0; done < text.size();) {
        const ssize_t n = write(to, text.data() + done, text.size() - done);
        if (n < 0 && errno != EINTR) _exit(1);
        if (n > 0) done += static_cast<std::size_t>(n);
    }
}

/// A child with a process group of its own, so that its servers end with it.
class worker {
  public:
    worker(std::size_t first, std::size_t rows, const stop_signals& signals,
           const std::function<std::string(std::size_t)>& measure)
        : signals_(signals) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0)
            throw std::system_error(errno, std::generic_category(), "pipe2");
        const pid_t parent = getpid();
        child_ = fork();
        if (child_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
        if (child_ == 0) {
            setpgid(0, 0);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(1);
            signals.restore();
            close(ends[0]);
            for (std::size_t row = first; row < rows; row++) {
                std::string line;
                try {
                    line = ended + measure(row);
                } catch (const std::exception& e) {
                    line = std::string(1, failed) + e.what();
                    for (char& c : line) {
                        if (c == '\n') c = ' ';
                    }
                }
                write_all(ends[1], line + '\n');
            }
            _exit(0);
        }
        setpgid(child_, child_);
        close(ends[1]);
        output_ = ends[0];
    }
    ~worker() {
        kill(-child_, SIGKILL);
        close(output_);
        if (!status_) waitpid(child_, nullptr, 0);
    }
    worker(const worker&) = delete;
    worker& operator=(const worker&) = delete;

    enum class answer { line, end, late, stop };

    answer next(std::string& line, unsigned patience) {
        const double until = seconds() + patience;
        for (;;) {
            if (const auto end = read_.find('\n'); end != std::string::npos) {
                line = read_.substr(0, end);
                read_.erase(0, end + 1);
                return answer::line;
            }
            if (stop_wanted) return answer::stop;
            const double left = until - seconds();
            if (left <= 0) return answer::late;
            pollfd readable{output_, POLLIN, 0};
            const timespec wait{static_cast<time_t>(left) + 1, 0};
            if (ppoll(&readable, 1, &wait, &signals_.outside()) <= 0) continue;
            char bytes[4096];
            const ssize_t n = read(output_, bytes, sizeof bytes);
            if (n <= 0) return answer::end;
            read_.append(bytes, static_cast<std::size_t>(n));
        }
    }

    std::string how_it_died() {
        int status = 0;
        waitpid(child_, &status, 0);
        status_ = status;
        if (WIFSIGNALED(status)) return fmt::format("crashed: {}", strsignal(WTERMSIG(status)));
        return fmt::format("ended the process with status {}", WEXITSTATUS(status));
    }

  private:
    const stop_signals& signals_;
    pid_t child_ = -1;
    int output_ = -1;
    std::string read_;
    std::optional<int> status_;
};

}  // namespace

bool run_rows(std::size_t rows, const std::function<std::string(std::size_t)>& measure,
              unsigned row_seconds, const row_events& events) {
    const stop_signals signals;
    for (std::size_t row = 0; row < rows;) {
        events.begins(row);
        worker child(row, rows, signals, measure);
        for (bool alive = true; alive && row < rows;) {
            std::string line;
            switch (child.next(line, row_seconds)) {
                case worker::answer::stop:
                    return false;
                case worker::answer::line:
                    if (line.front() == ended) {
                        events.ended(row, line.substr(1));
                    } else {
                        events.failed(row, line.substr(1));
                    }
                    break;
                case worker::answer::end:
                    events.failed(row, child.how_it_died());
                    alive = false;
                    break;
                case worker::answer::late:
                    events.failed(row, fmt::format("was not done after {} seconds", row_seconds));
                    alive = false;
                    break;
            }
            if (++row < rows && alive) events.begins(row);
        }
    }
    return true;
}

}  // namespace xos::bench
