#include "commands.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "commands_detail.hpp"

namespace kvd {
namespace {

aftermath ping(request& r) {
    if (r.args.size() > 2) return wrong_arity(r, "ping");
    if (r.args.size() == 2)
        r.reply.bulk(r.args[1]);
    else
        r.reply.simple("PONG");
    return aftermath::keep;
}

aftermath echo(request& r) {
    r.reply.bulk(r.args[1]);
    return aftermath::keep;
}

aftermath select(request& r) {
    const auto index = to_integer(r.args[1]);
    if (!index) return refuse(r, not_an_integer);
    if (*index != 0) return refuse(r, "ERR DB index is out of range");
    return done(r);
}

aftermath quit(request& r) {
    done(r);
    return aftermath::close;
}

// No reply, as in Redis: the client sees the connection end.
aftermath shutdown(request& r) {
    if (r.args.size() > 2 ||
        (r.args.size() == 2 && !same_word(r.args[1], "nosave") && !same_word(r.args[1], "save")))
        return refuse(r, syntax_error);
    r.host.stop();
    return aftermath::close;
}

aftermath info(request& r) {
    if (r.args.size() > 2) return refuse(r, syntax_error);
    r.reply.bulk(info_text(r.host, r.args.size() == 2 ? lower(r.args[1]) : std::string{}));
    return aftermath::keep;
}

aftermath config(request& r) {
    if (!same_word(r.args[1], "get")) return unknown_subcommand(r, "CONFIG");
    if (r.args.size() < 3) return wrong_arity(r, "config|get");
    // What redis-benchmark asks: kvd never writes to a disk.
    if (same_word(r.args[2], "save")) {
        r.reply.array(2);
        r.reply.bulk("save");
        r.reply.bulk("");
    } else if (same_word(r.args[2], "appendonly")) {
        r.reply.array(2);
        r.reply.bulk("appendonly");
        r.reply.bulk("no");
    } else {
        r.reply.array(0);
    }
    return aftermath::keep;
}

aftermath client(request& r) {
    if (same_word(r.args[1], "setname"))
        return r.args.size() == 3 ? done(r) : wrong_arity(r, "client|setname");
    if (same_word(r.args[1], "setinfo"))
        return r.args.size() == 4 ? done(r) : wrong_arity(r, "client|setinfo");
    return unknown_subcommand(r, "CLIENT");
}

// redis-cli asks COMMAND DOCS for its hints and lives without them.
aftermath command(request& r) {
    r.reply.array(0);
    return aftermath::keep;
}

// Sorted by name. As in Redis a negative arity is a minimum; the name itself counts.
struct entry {
    std::string_view name;
    int arity;
    aftermath (*run)(request&);
};

constexpr std::array table{
    entry{"client", -2, client},     entry{"command", -1, command}, entry{"config", -2, config},
    entry{"dbsize", 1, dbsize},      entry{"decr", 2, decr},        entry{"del", -2, del},
    entry{"echo", 2, echo},          entry{"exists", -2, exists},   entry{"expire", 3, expire},
    entry{"flushall", -1, flush},    entry{"flushdb", -1, flush},   entry{"get", 2, get},
    entry{"incr", 2, incr},          entry{"info", -1, info},       entry{"mget", -2, mget},
    entry{"mset", -3, mset},         entry{"ping", -1, ping},       entry{"pttl", 2, pttl},
    entry{"quit", -1, quit},         entry{"select", 2, select},    entry{"set", -3, set},
    entry{"shutdown", -1, shutdown}, entry{"ttl", 2, ttl},
};
static_assert(std::ranges::is_sorted(table, {}, &entry::name));

const entry* find(std::string_view name) noexcept {
    std::array<char, 16> folded{};
    if (name.size() > folded.size()) return nullptr;
    std::ranges::transform(name, folded.begin(), lower_char);
    const std::string_view wanted{folded.data(), name.size()};
    const auto at = std::ranges::lower_bound(table, wanted, {}, &entry::name);
    return at != table.end() && at->name == wanted ? at : nullptr;
}

aftermath unknown_command(request& r) {
    constexpr std::size_t shown = 128;
    std::string text = "ERR unknown command '";
    text += r.args[0].substr(0, shown);
    text += "', with args beginning with: ";
    std::string listed;
    for (const auto argument : r.args.subspan(1)) {
        if (listed.size() >= shown) break;
        listed += '\'';
        listed += argument.substr(0, shown - listed.size());
        listed += "' ";
    }
    return refuse(r, text + listed);
}

}  // namespace

aftermath execute(argument_list arguments, service& host, time_point now, reply_writer& reply) {
    request r{arguments, host, now, reply};
    const entry* const found = find(arguments[0]);
    if (found == nullptr) return unknown_command(r);
    const auto given = static_cast<std::ptrdiff_t>(arguments.size());
    if (found->arity >= 0 ? given != found->arity : given < -found->arity)
        return wrong_arity(r, found->name);
    return found->run(r);
}

}  // namespace kvd
