#include <array>
#include <utility>

#include "commands.hpp"

namespace kvd {
namespace {

class report {
  public:
    template <typename Value>
    report& line(std::string_view name, const Value& value) {
        text_ += name;
        text_ += ':';
        if constexpr (std::is_arithmetic_v<Value>)
            text_ += std::to_string(value);
        else
            text_ += value;
        text_ += "\r\n";
        return *this;
    }
    std::string take() { return std::move(text_); }

  private:
    std::string text_;
};

std::string server(const service& host) {
    const auto up = std::chrono::steady_clock::now() - host.self.started;
    return report{}
        .line("redis_mode", std::string_view{"standalone"})
        .line("engine", host.self.engine)
        .line("mode", host.self.mode)
        .line("process_id", ::getpid())
        .line("tcp_port", host.self.port)
        .line("uptime_in_seconds", std::chrono::duration_cast<std::chrono::seconds>(up).count())
        .take();
}

std::string clients(const service& host) {
    return report{}.line("connected_clients", host.counted.clients.load()).take();
}

std::string stats(const service& host) {
    return report{}
        .line("total_connections_received", host.counted.connections.load())
        .line("total_commands_processed", host.counted.commands.load())
        .take();
}

std::string keyspace(const service& host) {
    const auto keys = host.data.size();
    if (keys == 0) return {};
    return report{}
        .line("db0",
              "keys=" + std::to_string(keys) + ",expires=" + std::to_string(host.data.expiring()))
        .take();
}

std::string xos(const service& host) {
    const crossings so_far = host.count_crossings ? host.count_crossings() : crossings{};
    return report{}
        .line("exits_total", so_far.exits)
        .line("syscalls_forwarded", so_far.forwarded)
        .take();
}

struct section {
    std::string_view name;  // as a client spells it
    std::string_view title;
    std::string (*body)(const service&);
};

constexpr std::array sections{
    section{"server", "# Server\r\n", server},       section{"clients", "# Clients\r\n", clients},
    section{"stats", "# Stats\r\n", stats},          section{"xos", "# Xos\r\n", xos},
    section{"keyspace", "# Keyspace\r\n", keyspace},
};

}  // namespace

std::string info_text(const service& host, std::string_view wanted) {
    const bool everything =
        wanted.empty() || wanted == "all" || wanted == "default" || wanted == "everything";
    std::string text;
    for (const section& s : sections) {
        if (!everything && wanted != s.name) continue;
        if (!text.empty()) text += "\r\n";
        text += s.title;
        text += s.body(host);
    }
    return text;
}

}  // namespace kvd
