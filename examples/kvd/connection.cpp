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

waiting_for connection::on_readable(time_point now) {
    if (phase_ == phase::open) {
        const auto room = in_.prepare(std::clamp(in_.missing(), usual_read, largest_read));
        const ssize_t got =
            ::recv(socket_.get(), room.data(), std::min(room.size(), largest_read), 0);
        if (got > 0)
            in_.commit(static_cast<std::size_t>(got));
        else if (got == 0)
            phase_ = phase::half_closed;
        else if (errno != EAGAIN && errno != EINTR)
            return waiting_for::nothing;
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
            case sent::failed:
                return waiting_for::nothing;
            case sent::some:
                return waiting_for::output;
            case sent::all:
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

connection::sent connection::send_replies() {
    while (!out_.empty()) {
        const ssize_t taken = ::send(socket_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
        if (taken >= 0)
            out_.consume(static_cast<std::size_t>(taken));
        else if (errno == EAGAIN)
            return sent::some;
        else if (errno != EINTR)
            return sent::failed;
    }
    return sent::all;
}

}  // namespace kvd
