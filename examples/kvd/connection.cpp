#include "connection.hpp"

#include <sys/socket.h>

#include <algorithm>

namespace kvd {
namespace {

constexpr std::size_t usual_read = std::size_t{16} << 10;
constexpr std::size_t largest_read = std::size_t{1} << 20;

}  // namespace

connection::connection(unique_fd socket, service& host) : socket_{std::move(socket)}, host_{host} {}

connection::~connection() {
    host_.counted.clients.fetch_sub(1, std::memory_order_relaxed);
}

std::span<char> connection::room() {
    if (phase_ != phase::open) return {};
    const auto all = in_.prepare(std::clamp(in_.missing(), usual_read, largest_read));
    return all.first(std::min(all.size(), largest_read));
}

bool connection::received(std::ptrdiff_t result) {
    if (result > 0)
        in_.commit(static_cast<std::size_t>(result));
    else if (result == 0)
        phase_ = phase::half_closed;
    return result >= 0 || result == -EAGAIN || result == -EINTR;
}

bool connection::sent(std::ptrdiff_t result) {
    if (result > 0) out_.consume(static_cast<std::size_t>(result));
    return result >= 0 || result == -EAGAIN || result == -EINTR;
}

waiting_for connection::on_readable(time_point now) {
    if (const auto to = room(); !to.empty()) {
        const ssize_t got = ::recv(socket_.get(), to.data(), to.size(), 0);
        if (!received(got < 0 ? -errno : got)) return waiting_for::nothing;
    }
    return pump(now);
}

waiting_for connection::on_writable(time_point now) {
    return pump(now);
}

waiting_for connection::pump(time_point now) {
    for (;;) {
        const backlog commands = execute_some(now);
        switch (send_replies()) {
            case progress::failed:
                return waiting_for::nothing;
            case progress::some:
                return waiting_for::output;
            case progress::all:
                break;
        }
        if (commands == backlog::remains) continue;
        return phase_ == phase::open ? waiting_for::input : waiting_for::nothing;
    }
}

connection::backlog connection::execute_some(time_point now) {
    reply_writer reply{out_};
    std::uint64_t executed = 0;
    backlog commands = backlog::remains;
    while (phase_ != phase::ending && out_.size() < max_unsent) {
        const parse_result found = in_.next();
        if (found == parse_result::incomplete) {
            commands = backlog::none;
            break;
        }
        if (found == parse_result::malformed) {
            reply.error("ERR " + std::string{in_.error()});
            phase_ = phase::ending;
            break;
        }
        ++executed;
        if (execute(in_.arguments(), host_, now, reply) == aftermath::close) phase_ = phase::ending;
    }
    if (executed != 0) host_.counted.commands.fetch_add(executed, std::memory_order_relaxed);
    return phase_ == phase::ending ? backlog::none : commands;
}

connection::progress connection::send_replies() {
    while (!out_.empty()) {
        const ssize_t taken = ::send(socket_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
        if (taken < 0 && errno == EAGAIN) return progress::some;
        if (!sent(taken < 0 ? -errno : taken)) return progress::failed;
    }
    return progress::all;
}

}  // namespace kvd
