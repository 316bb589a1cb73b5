#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <xos/error.hpp>

using xos::errc;

TEST_CASE("every error code has a message of its own and an errno that is like it") {
    std::set<std::string> messages;
    constexpr int last = static_cast<int>(errc::other_thread);
    for (int i = 1; i <= last; i++) {
        const auto code = make_error_code(static_cast<errc>(i));
        CAPTURE(i);
        CHECK(code.message() != "unknown");
        CHECK(messages.insert(code.message()).second);
        const auto like = code.default_error_condition();
        CHECK(like.category() == std::generic_category());
        CHECK(like.value() != 0);
        CHECK(code == like);
    }
    CHECK(make_error_code(static_cast<errc>(last + 1)).message() == "unknown");
}

TEST_CASE("error codes compare with libxos's own and with the standard's") {
    const std::error_code code = errc::no_vcpu;
    CHECK(code == errc::no_vcpu);
    CHECK(code != errc::no_memory);
    CHECK(code == std::errc::resource_unavailable_try_again);
    CHECK(code != std::errc::not_enough_memory);
    CHECK(std::string(code.category().name()) == "xos");
    CHECK(code != std::error_code(code.value(), std::generic_category()));
}
