// The data: binary-safe keys and values with an optional time to live.
//
// Time is an argument of every call, so a caller reads the clock once for a batch of requests, and
// a test needs no clock at all. An expired key is never seen: whoever touches it removes it, and
// remove_expired() removes those that nobody touches.
//
// Calls on several keys are atomic. Callbacks run under the locks of the keys: they must be short
// and must not call the store.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace kvd {

using milliseconds = std::chrono::milliseconds;
using time_point = std::chrono::time_point<std::chrono::steady_clock, milliseconds>;

/// The expiry of a key that stays.
inline constexpr time_point never = time_point::max();

enum class condition { always, if_absent, if_present };
enum class add_error { not_an_integer, overflow };

/// Whether several threads use the store. One thread pays for no lock.
enum class sharing { one_thread, many_threads };

class store {
  public:
    using keys = std::span<const std::string_view>;

    explicit store(sharing use);

    /// Calls `reader(std::string_view)` with the value and answers whether there is one.
    template <typename Reader>
    bool read(std::string_view key, time_point now, Reader&& reader);

    /// Calls `reader(std::optional<std::string_view>)` for every key, in order.
    template <typename Reader>
    void read_each(keys wanted, time_point now, Reader&& reader);

    /// Writes value and expiry; false when `when` forbids it. An expiry that is over removes the
    /// key.
    bool set(std::string_view key, std::string_view value, time_point now,
             time_point expires = never, condition when = condition::always);

    /// `pairs` is key, value, key, value, ...
    void set_each(std::span<const std::string_view> pairs, time_point now);

    /// How many of the keys were removed, or exist (a key named twice counts twice).
    std::size_t erase(keys unwanted, time_point now);
    std::size_t count(keys wanted, time_point now);

    /// Adds to the integer at `key` (0 when absent), keeping its expiry.
    std::expected<std::int64_t, add_error> add(std::string_view key, std::int64_t delta,
                                               time_point now);

    /// Sets the expiry of an existing key; one that is over removes it. False when there is none.
    bool expire_at(std::string_view key, time_point when, time_point now);

    /// When the key expires: `never`, or nothing when it doesn't exist.
    std::optional<time_point> expiry(std::string_view key, time_point now);

    void clear();

    /// Keys, and keys with an expiry; expired ones nobody has touched yet are counted.
    std::size_t size() const;
    std::size_t expiring() const;

    /// Removes at most `limit` expired keys from each shard; answers the most that one shard lost,
    /// so `limit` means that there may be more.
    std::size_t remove_expired(time_point now, std::size_t limit);

  private:
    struct hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view key) const noexcept {
            return std::hash<std::string_view>{}(key);
        }
    };
    struct entry {
        std::string value;
        time_point expires = never;
    };
    using map = std::unordered_map<std::string, entry, hash, std::equal_to<>>;
    using deadline = std::pair<time_point, const std::string*>;  // the key inside the map's node

    struct alignas(64) shard {
        mutable std::mutex mutex;
        map entries;
        std::set<deadline> deadlines;  // one for each entry that expires

        map::iterator find(std::string_view key, time_point now);
        map::iterator find_or_make(std::string_view key, time_point now);
        void remove(map::iterator at);
        void set_expiry(map::iterator at, time_point when);
    };

    // Holds the locks of a set of shards, taken in ascending order: two such sets never deadlock.
    class lock {
      public:
        lock(const store& owner, std::uint64_t shards);
        ~lock();
        lock(const lock&) = delete;
        lock& operator=(const lock&) = delete;

      private:
        const store& owner_;
        std::uint64_t shards_;
    };

    static constexpr unsigned shards_when_shared = 64;  // one bit each in a lock's set

    unsigned index_of(std::string_view key) const noexcept;
    shard& shard_of(std::string_view key) const noexcept { return shards_[index_of(key)]; }
    std::uint64_t bit_of(unsigned index) const noexcept {
        return shard_count_ == 1 ? 0 : std::uint64_t{1} << index;
    }
    std::uint64_t shards_of(keys list, std::size_t step = 1) const noexcept;

    unsigned shard_count_;
    std::unique_ptr<shard[]> shards_;
};

template <typename Reader>
bool store::read(std::string_view key, time_point now, Reader&& reader) {
    const unsigned index = index_of(key);
    const lock held{*this, bit_of(index)};
    shard& home = shards_[index];
    const auto at = home.find(key, now);
    if (at == home.entries.end()) return false;
    reader(std::string_view{at->second.value});
    return true;
}

template <typename Reader>
void store::read_each(keys wanted, time_point now, Reader&& reader) {
    const lock held{*this, shards_of(wanted)};
    for (const auto key : wanted) {
        shard& home = shard_of(key);
        const auto at = home.find(key, now);
        if (at == home.entries.end())
            reader(std::optional<std::string_view>{});
        else
            reader(std::optional<std::string_view>{at->second.value});
    }
}

}  // namespace kvd
