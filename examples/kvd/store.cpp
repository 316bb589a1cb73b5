#include "store.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <vector>

#include "integer.hpp"

namespace kvd {
namespace {

void overwrite(std::string& value, std::string_view bytes) {
    constexpr std::size_t slack = 1024;
    if (value.capacity() > 2 * bytes.size() + slack)
        value = std::string{bytes};  // else a short value would keep a long one's memory
    else
        value.assign(bytes);
}

}  // namespace

store::store(sharing use)
    : shard_count_{use == sharing::one_thread ? 1 : shards_when_shared},
      shards_{std::make_unique<shard[]>(shard_count_)} {}

bool store::set(std::string_view key, std::string_view value, time_point now, time_point expires,
                condition when) {
    const unsigned index = index_of(key);
    const lock held{*this, bit_of(index)};
    shard& home = shards_[index];
    if (when != condition::always) {
        const bool present = home.find(key, now) != home.entries.end();
        if (present != (when == condition::if_present)) return false;
    }
    const auto at = home.find_or_make(key, now);
    overwrite(at->second.value, value);
    if (expires <= now)
        home.remove(at);
    else
        home.set_expiry(at, expires);
    return true;
}

void store::set_each(std::span<const std::string_view> pairs, time_point now) {
    const lock held{*this, shards_of(pairs, 2)};
    for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
        shard& home = shard_of(pairs[i]);
        const auto at = home.find_or_make(pairs[i], now);
        overwrite(at->second.value, pairs[i + 1]);
        home.set_expiry(at, never);
    }
}

std::size_t store::erase(keys unwanted, time_point now) {
    const lock held{*this, shards_of(unwanted)};
    std::size_t removed = 0;
    for (const auto key : unwanted) {
        shard& home = shard_of(key);
        const auto at = home.find(key, now);
        if (at == home.entries.end()) continue;
        home.remove(at);
        ++removed;
    }
    return removed;
}

std::size_t store::count(keys wanted, time_point now) {
    std::size_t found = 0;
    read_each(wanted, now, [&](std::optional<std::string_view> value) { found += value ? 1 : 0; });
    return found;
}

std::expected<std::int64_t, add_error> store::add(std::string_view key, std::int64_t delta,
                                                  time_point now) {
    const unsigned index = index_of(key);
    const lock held{*this, bit_of(index)};
    shard& home = shards_[index];
    std::int64_t sum = 0;
    if (const auto at = home.find(key, now); at != home.entries.end()) {
        const auto old = to_integer(at->second.value);
        if (!old) return std::unexpected{add_error::not_an_integer};
        sum = *old;
    }
    if (__builtin_add_overflow(sum, delta, &sum)) return std::unexpected{add_error::overflow};

    char text[20];
    const char* const end = std::to_chars(text, text + sizeof text, sum).ptr;
    overwrite(home.find_or_make(key, now)->second.value, {text, end});
    return sum;
}

bool store::expire_at(std::string_view key, time_point when, time_point now) {
    const unsigned index = index_of(key);
    const lock held{*this, bit_of(index)};
    shard& home = shards_[index];
    const auto at = home.find(key, now);
    if (at == home.entries.end()) return false;
    if (when <= now)
        home.remove(at);
    else
        home.set_expiry(at, when);
    return true;
}

std::optional<time_point> store::expiry(std::string_view key, time_point now) {
    const unsigned index = index_of(key);
    const lock held{*this, bit_of(index)};
    shard& home = shards_[index];
    const auto at = home.find(key, now);
    if (at == home.entries.end()) return {};
    return at->second.expires;
}

void store::clear() {
    std::vector<map> discarded(shard_count_);  // destroyed after the locks are released
    const lock held{*this, shard_count_ == 1 ? 0 : ~std::uint64_t{0}};
    for (unsigned i = 0; i < shard_count_; ++i) {
        shards_[i].deadlines.clear();
        shards_[i].entries.swap(discarded[i]);
    }
}

std::size_t store::size() const {
    std::size_t sum = 0;
    for (unsigned i = 0; i < shard_count_; ++i) {
        const lock held{*this, bit_of(i)};
        sum += shards_[i].entries.size();
    }
    return sum;
}

std::size_t store::expiring() const {
    std::size_t sum = 0;
    for (unsigned i = 0; i < shard_count_; ++i) {
        const lock held{*this, bit_of(i)};
        sum += shards_[i].deadlines.size();
    }
    return sum;
}

std::size_t store::remove_expired(time_point now, std::size_t limit) {
    std::size_t most = 0;
    for (unsigned i = 0; i < shard_count_; ++i) {
        const lock held{*this, bit_of(i)};
        shard& home = shards_[i];
        std::size_t removed = 0;
        while (removed < limit && !home.deadlines.empty() && home.deadlines.begin()->first <= now) {
            home.remove(home.entries.find(*home.deadlines.begin()->second));
            ++removed;
        }
        most = std::max(most, removed);
    }
    return most;
}

store::map::iterator store::shard::find(std::string_view key, time_point now) {
    const auto at = entries.find(key);
    if (at == entries.end() || at->second.expires > now) return at;
    remove(at);
    return entries.end();
}

store::map::iterator store::shard::find_or_make(std::string_view key, time_point now) {
    const auto at = find(key, now);
    return at != entries.end() ? at : entries.try_emplace(std::string{key}).first;
}

void store::shard::remove(map::iterator at) {
    set_expiry(at, never);
    entries.erase(at);
}

void store::shard::set_expiry(map::iterator at, time_point when) {
    time_point& current = at->second.expires;
    if (current == when) return;
    if (current != never) deadlines.erase({current, &at->first});
    if (when != never) deadlines.emplace(when, &at->first);
    current = when;
}

store::lock::lock(const store& owner, std::uint64_t shards) : owner_{owner}, shards_{shards} {
    for (std::uint64_t rest = shards; rest != 0; rest &= rest - 1)
        owner_.shards_[static_cast<unsigned>(std::countr_zero(rest))].mutex.lock();
}

store::lock::~lock() {
    for (std::uint64_t rest = shards_; rest != 0; rest &= rest - 1)
        owner_.shards_[static_cast<unsigned>(std::countr_zero(rest))].mutex.unlock();
}

unsigned store::index_of(std::string_view key) const noexcept {
    if (shard_count_ == 1) return 0;
    // High bits, so that the keys of one shard still spread over all buckets of its map.
    return static_cast<unsigned>(hash{}(key) >> 48) % shards_when_shared;
}

std::uint64_t store::shards_of(keys list, std::size_t step) const noexcept {
    if (shard_count_ == 1) return 0;
    std::uint64_t set = 0;
    for (std::size_t i = 0; i < list.size(); i += step) set |= bit_of(index_of(list[i]));
    return set;
}

}  // namespace kvd
