#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "store.hpp"

using kvd::add_error;
using kvd::condition;
using kvd::milliseconds;
using kvd::never;
using kvd::sharing;
using kvd::store;
using kvd::time_point;

namespace {

constexpr time_point start{milliseconds{1'000'000}};

std::optional<std::string> value_of(store& s, std::string_view key, time_point now = start) {
    std::optional<std::string> value;
    s.read(key, now, [&](std::string_view v) { value = std::string{v}; });
    return value;
}

std::size_t erase(store& s, std::vector<std::string_view> keys, time_point now = start) {
    return s.erase(keys, now);
}

std::size_t count(store& s, std::vector<std::string_view> keys, time_point now = start) {
    return s.count(keys, now);
}

}  // namespace

TEST_CASE("values are stored, replaced and removed") {
    store s{GENERATE(sharing::one_thread, sharing::many_threads)};
    const std::string binary{"a\0b\xff\r\n", 6};
    CHECK(s.set("k", "1", start));
    CHECK(s.set("k", binary, start));
    CHECK(s.set(binary, "by binary key", start));
    CHECK(value_of(s, "k") == binary);
    CHECK(value_of(s, binary) == "by binary key");
    CHECK(value_of(s, std::string_view{binary}.substr(0, 2)) == std::nullopt);
    CHECK(count(s, {"k", "k", "missing"}) == 2);
    CHECK(erase(s, {"k", "k", "missing"}) == 1);
    CHECK(s.size() == 1);
    s.clear();
    CHECK(s.size() == 0);
}

TEST_CASE("a condition decides whether set writes") {
    store s{sharing::one_thread};
    CHECK_FALSE(s.set("k", "1", start, never, condition::if_present));
    CHECK(s.set("k", "1", start, never, condition::if_absent));
    CHECK_FALSE(s.set("k", "2", start, never, condition::if_absent));
    CHECK(s.set("k", "3", start, never, condition::if_present));
    CHECK(value_of(s, "k") == "3");
}

TEST_CASE("a condition does not see an expired key") {
    store s{sharing::one_thread};
    s.set("k", "1", start, start + milliseconds{10});
    CHECK_FALSE(s.set("k", "2", start + milliseconds{10}, never, condition::if_present));
    CHECK(s.set("k", "3", start + milliseconds{10}, never, condition::if_absent));
}

TEST_CASE("a key is there until its time and not at it") {
    store s{GENERATE(sharing::one_thread, sharing::many_threads)};
    s.set("k", "v", start, start + milliseconds{100});
    CHECK(value_of(s, "k", start + milliseconds{99}) == "v");
    CHECK(s.expiry("k", start) == start + milliseconds{100});
    CHECK(s.size() == 1);
    CHECK(value_of(s, "k", start + milliseconds{100}) == std::nullopt);
    CHECK(s.size() == 0);  // whoever meets an expired key removes it
    CHECK(s.expiring() == 0);
}

TEST_CASE("expiry can be set, replaced and dropped") {
    store s{sharing::one_thread};
    CHECK_FALSE(s.expire_at("k", start + milliseconds{1}, start));
    CHECK(s.expiry("k", start) == std::nullopt);
    s.set("k", "v", start);
    CHECK(s.expiry("k", start) == never);
    CHECK(s.expire_at("k", start + milliseconds{5}, start));
    CHECK(s.expire_at("k", start + milliseconds{50}, start));
    CHECK(s.expiring() == 1);
    CHECK(value_of(s, "k", start + milliseconds{6}) == "v");
    s.set("k", "w", start);
    CHECK(s.expiry("k", start) == never);
    CHECK(s.expiring() == 0);
    CHECK(s.expire_at("k", start, start));
    CHECK(value_of(s, "k") == std::nullopt);
}

TEST_CASE("writing a key with an expiry that is over removes it") {
    store s{sharing::one_thread};
    s.set("k", "v", start);
    CHECK(s.set("k", "w", start, start));
    CHECK(s.size() == 0);
    CHECK(s.expiring() == 0);
}

TEST_CASE("active expiry is bounded and takes the oldest first") {
    store s{sharing::one_thread};
    for (int i = 0; i < 100; ++i)
        s.set("k" + std::to_string(i), "v", start, start + milliseconds{i + 1});
    s.set("stays", "v", start);
    CHECK(s.remove_expired(start, 10) == 0);
    CHECK(s.remove_expired(start + milliseconds{50}, 10) == 10);
    CHECK(s.size() == 91);
    CHECK(s.remove_expired(start + milliseconds{50}, 1000) == 40);
    CHECK(s.size() == 51);
    CHECK(s.remove_expired(start + milliseconds{1000}, 1000) == 50);
    CHECK(s.size() == 1);
    CHECK(value_of(s, "stays") == "v");
}

TEST_CASE("several keys are read and written together") {
    store s{GENERATE(sharing::one_thread, sharing::many_threads)};
    s.set("a", "old", start, start + milliseconds{5});
    s.set_each(std::vector<std::string_view>{"a", "1", "b", "2", "a", "3"}, start);
    std::string seen;
    s.read_each(std::vector<std::string_view>{"a", "x", "b"}, start + milliseconds{10},
                [&](std::optional<std::string_view> v) { seen += v.value_or("-"); });
    CHECK(seen == "3-2");
}

TEST_CASE("add counts from zero and keeps the expiry") {
    store s{sharing::one_thread};
    CHECK(s.add("n", 1, start) == 1);
    CHECK(s.add("n", -3, start) == -2);
    CHECK(value_of(s, "n") == "-2");
    s.expire_at("n", start + milliseconds{10}, start);
    CHECK(s.add("n", 1, start) == -1);
    CHECK(s.expiry("n", start) == start + milliseconds{10});
    CHECK(s.add("n", 1, start + milliseconds{10}) == 1);
    CHECK(s.expiry("n", start + milliseconds{10}) == never);
}

TEST_CASE("add refuses what is no integer and what does not fit") {
    store s{sharing::one_thread};
    for (const auto* text : {"", "x", "1x", " 1", "01", "9223372036854775808"}) {
        s.set("n", text, start);
        CHECK(s.add("n", 1, start).error() == add_error::not_an_integer);
        CHECK(value_of(s, "n") == text);
    }
    s.set("n", "9223372036854775807", start);
    CHECK(s.add("n", 1, start).error() == add_error::overflow);
    CHECK(s.add("n", -1, start) == INT64_MAX - 1);
    s.set("n", "-9223372036854775808", start);
    CHECK(s.add("n", -1, start).error() == add_error::overflow);
    CHECK(value_of(s, "n") == "-9223372036854775808");
}

TEST_CASE("many keys with and without expiry survive growth of the map") {
    store s{sharing::many_threads};
    for (int i = 0; i < 20'000; ++i)
        s.set(std::to_string(i), std::to_string(i), start,
              i % 2 ? start + milliseconds{1000 + i} : never);
    CHECK(s.size() == 20'000);
    CHECK(s.expiring() == 10'000);
    while (s.remove_expired(start + milliseconds{100'000}, 20) == 20) {
    }
    CHECK(s.size() == 10'000);
    CHECK(s.expiring() == 0);
    CHECK(value_of(s, "1234") == "1234");
}

TEST_CASE("threads lose no increment") {
    store s{sharing::many_threads};
    constexpr int threads = 4, rounds = 20'000;
    {
        std::vector<std::jthread> crowd;
        for (int t = 0; t < threads; ++t)
            crowd.emplace_back([&s, t] {
                for (int i = 0; i < rounds; ++i) {
                    s.add("shared" + std::to_string(i % 8), 1, start);
                    s.set("own" + std::to_string(t), std::to_string(i), start,
                          start + milliseconds{1 + i % 5});
                    s.remove_expired(start + milliseconds{3}, 4);
                }
            });
    }
    std::int64_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += std::stoll(*value_of(s, "shared" + std::to_string(i)));
    CHECK(sum == threads * rounds);
}

TEST_CASE("writing several keys is atomic for readers of several keys, in any order") {
    store s{sharing::many_threads};
    const std::vector<std::string_view> forward{"a", "b", "c"}, backward{"c", "b", "a"};
    s.set_each(std::vector<std::string_view>{"a", "0", "b", "0", "c", "0"}, start);
    std::atomic<bool> torn{false};
    {
        std::jthread writer{[&] {
            for (int i = 0; i < 20'000; ++i) {
                const std::string v = std::to_string(i);
                s.set_each(std::vector<std::string_view>{"b", v, "c", v, "a", v}, start);
            }
        }};
        for (int i = 0; i < 20'000; ++i) {
            std::vector<std::string> seen;
            s.read_each(i % 2 ? forward : backward, start,
                        [&](auto v) { seen.emplace_back(v.value_or("")); });
            if (seen[0] != seen[1] || seen[1] != seen[2]) torn = true;
        }
    }
    CHECK_FALSE(torn);
}
