#include "bench/suites/mimalloc.hpp"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace xos::bench {

namespace {

pid_t worker;
int to_worker;
FILE* from_worker;

std::string worker_path() {
    return std::filesystem::read_symlink("/proc/self/exe").replace_filename("xos-bench-mimalloc");
}

}  // namespace

bool has_mimalloc() {
    return access(worker_path().c_str(), X_OK) == 0;
}

void start_mimalloc(const char* loop) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        throw std::system_error(errno, std::system_category(), "socketpair");
    const std::string path = worker_path();
    const char* const argv[] = {path.c_str(), loop, nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    const int failed = posix_spawn(&worker, path.c_str(), &actions, nullptr,
                                   const_cast<char* const*>(argv), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    to_worker = ends[0];
    from_worker = fdopen(ends[0], "r");
    if (failed) throw std::system_error(failed, std::system_category(), path);
}

std::uint64_t measure_mimalloc(std::uint64_t operations) {
    const std::string line = std::to_string(operations) + '\n';
    send(to_worker, line.data(), line.size(), MSG_NOSIGNAL);
    std::uint64_t ticks;
    if (std::fscanf(from_worker, "%" SCNu64, &ticks) != 1)
        throw std::runtime_error(worker_path() + " has ended");
    return ticks;
}

void end_mimalloc() {
    std::fclose(from_worker);
    waitpid(worker, nullptr, 0);
}

}  // namespace xos::bench
