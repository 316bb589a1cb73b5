// The commands that read and write the store.
#include "commands_detail.hpp"

namespace kvd {
namespace {

enum class unit : std::int64_t { milliseconds = 1, seconds = 1000 };

/// `amount` after `now`, or nothing when that is no representable time.
std::optional<time_point> after(time_point now, std::int64_t amount, unit scale) {
    std::int64_t end = 0;
    if (__builtin_mul_overflow(amount, static_cast<std::int64_t>(scale), &end)) return {};
    if (__builtin_add_overflow(end, now.time_since_epoch().count(), &end)) return {};
    const time_point when{milliseconds{end}};
    if (when == never) return {};
    return when;
}

aftermath invalid_expire(request& r, std::string_view command) {
    return refuse(r, "ERR invalid expire time in '" + std::string{command} + "' command");
}

struct set_options {
    condition when = condition::always;
    std::optional<std::string_view> lifetime;
    unit scale = unit::seconds;
};

/// The words after SET key value; nothing when Redis would call them a syntax error.
std::optional<set_options> parse_set_options(argument_list words) {
    set_options options;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const bool nx = same_word(words[i], "nx");
        if (nx || same_word(words[i], "xx")) {
            const condition wanted = nx ? condition::if_absent : condition::if_present;
            if (options.when != condition::always && options.when != wanted) return {};
            options.when = wanted;
            continue;
        }
        const bool ex = same_word(words[i], "ex");
        if (!ex && !same_word(words[i], "px")) return {};
        if (options.lifetime || i + 1 == words.size()) return {};
        options.lifetime = words[++i];
        options.scale = ex ? unit::seconds : unit::milliseconds;
    }
    return options;
}

aftermath add(request& r, std::int64_t delta) {
    const auto sum = r.host.data.add(r.args[1], delta, r.now);
    if (sum)
        r.reply.integer(*sum);
    else if (sum.error() == add_error::overflow)
        r.reply.error("ERR increment or decrement would overflow");
    else
        r.reply.error(not_an_integer);
    return aftermath::keep;
}

/// Replies with the rest of the key's life, in milliseconds rounded to the unit.
aftermath remaining(request& r, unit scale) {
    const auto when = r.host.data.expiry(r.args[1], r.now);
    const auto divisor = static_cast<std::int64_t>(scale);
    if (!when)
        r.reply.integer(-2);
    else if (*when == never)
        r.reply.integer(-1);
    else
        r.reply.integer(((*when - r.now).count() + divisor / 2) / divisor);
    return aftermath::keep;
}

}  // namespace

aftermath get(request& r) {
    const bool found =
        r.host.data.read(r.args[1], r.now, [&](std::string_view value) { r.reply.bulk(value); });
    if (!found) r.reply.null();
    return aftermath::keep;
}

aftermath set(request& r) {
    const auto options = parse_set_options(r.args.subspan(3));
    if (!options) return refuse(r, syntax_error);

    time_point expires = never;
    if (options->lifetime) {
        const auto amount = to_integer(*options->lifetime);
        if (!amount) return refuse(r, not_an_integer);
        const auto end = *amount > 0 ? after(r.now, *amount, options->scale) : std::nullopt;
        if (!end) return invalid_expire(r, "set");
        expires = *end;
    }
    if (r.host.data.set(r.args[1], r.args[2], r.now, expires, options->when)) return done(r);
    r.reply.null();
    return aftermath::keep;
}

aftermath del(request& r) {
    r.reply.integer(static_cast<std::int64_t>(r.host.data.erase(r.args.subspan(1), r.now)));
    return aftermath::keep;
}

aftermath exists(request& r) {
    r.reply.integer(static_cast<std::int64_t>(r.host.data.count(r.args.subspan(1), r.now)));
    return aftermath::keep;
}

aftermath incr(request& r) {
    return add(r, 1);
}

aftermath decr(request& r) {
    return add(r, -1);
}

aftermath mget(request& r) {
    r.reply.array(r.args.size() - 1);
    r.host.data.read_each(r.args.subspan(1), r.now, [&](std::optional<std::string_view> value) {
        if (value)
            r.reply.bulk(*value);
        else
            r.reply.null();
    });
    return aftermath::keep;
}

aftermath mset(request& r) {
    if (r.args.size() % 2 == 0) return wrong_arity(r, "mset");
    r.host.data.set_each(r.args.subspan(1), r.now);
    return done(r);
}

aftermath expire(request& r) {
    const auto amount = to_integer(r.args[2]);
    if (!amount) return refuse(r, not_an_integer);
    const auto when = after(r.now, *amount, unit::seconds);
    if (!when) return invalid_expire(r, "expire");
    r.reply.integer(r.host.data.expire_at(r.args[1], *when, r.now) ? 1 : 0);
    return aftermath::keep;
}

aftermath ttl(request& r) {
    return remaining(r, unit::seconds);
}

aftermath pttl(request& r) {
    return remaining(r, unit::milliseconds);
}

aftermath dbsize(request& r) {
    r.reply.integer(static_cast<std::int64_t>(r.host.data.size()));
    return aftermath::keep;
}

aftermath flush(request& r) {
    if (r.args.size() > 2 ||
        (r.args.size() == 2 && !same_word(r.args[1], "async") && !same_word(r.args[1], "sync")))
        return refuse(r, syntax_error);
    r.host.data.clear();
    return done(r);
}

}  // namespace kvd
