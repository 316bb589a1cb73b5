#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "integer.hpp"
#include "resp.hpp"

using kvd::parse_result;
using kvd::parser;
using words = std::vector<std::string>;

namespace {

struct outcome {
    std::vector<words> commands;
    std::string error;
    bool operator==(const outcome&) const = default;
};

void collect(parser& in, outcome& seen) {
    for (;;) {
        const auto result = in.next();
        if (result == parse_result::malformed) seen.error = in.error();
        if (result != parse_result::command) return;
        seen.commands.emplace_back(in.arguments().begin(), in.arguments().end());
    }
}

outcome parse_pieces(const std::vector<std::string_view>& pieces) {
    parser in;
    outcome seen;
    for (const auto piece : pieces) {
        in.feed(piece);
        collect(in, seen);
    }
    return seen;
}

outcome parse_whole(std::string_view bytes) {
    return parse_pieces({bytes});
}

outcome parse_bytewise(std::string_view bytes) {
    std::vector<std::string_view> pieces;
    for (std::size_t i = 0; i < bytes.size(); ++i) pieces.push_back(bytes.substr(i, 1));
    return parse_pieces(pieces);
}

outcome parse_randomly(std::string_view bytes, std::mt19937& random) {
    std::vector<std::string_view> pieces;
    while (!bytes.empty()) {
        const auto length = std::uniform_int_distribution<std::size_t>{1, 40}(random);
        pieces.push_back(bytes.substr(0, length));
        bytes.remove_prefix(pieces.back().size());
    }
    return parse_pieces(pieces);
}

std::string request(const words& arguments) {
    std::string bytes = "*" + std::to_string(arguments.size()) + "\r\n";
    for (const auto& a : arguments) bytes += "$" + std::to_string(a.size()) + "\r\n" + a + "\r\n";
    return bytes;
}

template <typename Write>
std::string written(Write write) {
    kvd::byte_buffer out;
    kvd::reply_writer reply{out};
    write(reply);
    return std::string{out.view()};
}

}  // namespace

TEST_CASE("a command arrives in one piece") {
    const auto seen = parse_whole("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    CHECK(seen.commands == std::vector<words>{{"GET", "key"}});
    CHECK(seen.error.empty());
}

TEST_CASE("arguments are binary safe") {
    const words sent{"SET", std::string{"a\0b\r\n", 5}, "*1\r\n$4\r\nPING\r\n", ""};
    CHECK(parse_whole(request(sent)).commands == std::vector<words>{sent});
}

TEST_CASE("the cut of the stream does not change what is parsed") {
    std::mt19937 random{7};
    std::string stream;
    std::vector<words> sent;
    for (int i = 0; i < 300; ++i) {
        switch (random() % 4) {
            case 0:
                stream += "PING  hello\r\n";
                sent.push_back({"PING", "hello"});
                break;
            case 1:
                stream += random() % 2 ? "\r\n" : "*0\r\n*-1\r\n";
                break;
            default: {
                words command(1 + random() % 5);
                for (auto& word : command)
                    for (auto left = random() % 60; left != 0; --left)
                        word += static_cast<char>(random());
                stream += request(command);
                sent.push_back(command);
            }
        }
    }
    const outcome expected{sent, {}};
    REQUIRE(parse_whole(stream) == expected);
    CHECK(parse_bytewise(stream) == expected);
    for (int round = 0; round < 50; ++round) CHECK(parse_randomly(stream, random) == expected);
}

TEST_CASE("a large value arrives in receive-sized pieces") {
    const std::string value(std::size_t{5} << 20, 'v');
    const std::string stream = request({"SET", "k", value}) + request({"PING"});
    parser in;
    outcome seen;
    for (std::size_t at = 0; at < stream.size(); at += 16384) {
        in.feed(std::string_view{stream}.substr(at, 16384));
        collect(in, seen);
    }
    CHECK(seen.commands == std::vector<words>{{"SET", "k", value}, {"PING"}});
}

TEST_CASE("the parser says how much of a value is missing") {
    parser in;
    in.feed("*2\r\n$3\r\nGET\r\n$1000\r\nabc");
    REQUIRE(in.next() == parse_result::incomplete);
    CHECK(in.missing() == 999);
}

TEST_CASE("inline commands are split as a shell would") {
    CHECK(parse_whole("  SET key value \r\n").commands ==
          std::vector<words>{{"SET", "key", "value"}});
    CHECK(parse_whole("PING\nPING\n").commands == std::vector<words>{{"PING"}, {"PING"}});
    CHECK(parse_whole("ECHO \"a b\\x41\\n\\\"\" 'it\\'s'\r\n").commands ==
          std::vector<words>{{"ECHO", "a bA\n\"", "it's"}});
    CHECK(parse_whole("ECHO \"\"\r\n").commands == std::vector<words>{{"ECHO", ""}});
}

TEST_CASE("malformed input ends the stream with Redis' words, however it is cut") {
    const auto [stream, reason] = GENERATE(table<std::string, std::string>({
        {"*abc\r\n", "invalid multibulk length"},
        {"*01\r\n", "invalid multibulk length"},
        {"*2147483648\r\n", "invalid multibulk length"},
        {"*1\n", "invalid multibulk length"},
        {"*1\r\nPING\r\n", "expected '$', got 'P'"},
        {"*1\r\n$-1\r\n", "invalid bulk length"},
        {"*1\r\n$x\r\n", "invalid bulk length"},
        {"*1\r\n$536870913\r\n", "invalid bulk length"},
        {"*1\r\n$99999999999999999999\r\n", "invalid bulk length"},
        {"*1\r\n$2\r\nPING\r\n", "bulk string not terminated by CRLF"},
        {"ECHO \"open\r\n", "unbalanced quotes in request"},
        {"ECHO \"a\"b\r\n", "unbalanced quotes in request"},
        {"*1\r\n$" + std::string(70'000, '1'), "too big bulk count string"},
        {"*" + std::string(70'000, '1'), "too big mbulk count string"},
        {std::string(70'000, 'x'), "too big inline request"},
        {std::string(70'000, 'x') + "\r\n", "too big inline request"},
    }));
    const std::string all = request({"PING"}) + stream;
    const outcome expected{{{"PING"}}, "Protocol error: " + reason};
    CHECK(parse_whole(all) == expected);
    CHECK(parse_bytewise(all) == expected);
}

TEST_CASE("a malformed stream stays malformed") {
    parser in;
    in.feed("*x\r\n");
    REQUIRE(in.next() == parse_result::malformed);
    in.feed(request({"PING"}));
    CHECK(in.next() == parse_result::malformed);
}

TEST_CASE("random bytes never do more than fail") {
    std::mt19937 random{11};
    constexpr std::string_view alphabet = "*$\r\n012-9\"'\\xGET ";
    for (int round = 0; round < 2000; ++round) {
        std::string stream;
        for (int i = 0; i < 100; ++i) stream += alphabet[random() % alphabet.size()];
        const outcome whole = parse_whole(stream);
        CHECK(parse_bytewise(stream) == whole);
    }
}

TEST_CASE("replies have their RESP2 form") {
    CHECK(written([](auto& r) { r.simple("OK"); }) == "+OK\r\n");
    CHECK(written([](auto& r) { r.error("ERR a\r\nb"); }) == "-ERR a  b\r\n");
    CHECK(written([](auto& r) { r.integer(INT64_MIN); }) == ":-9223372036854775808\r\n");
    CHECK(written([](auto& r) { r.bulk("a\r\nb"); }) == "$4\r\na\r\nb\r\n");
    CHECK(written([](auto& r) { r.bulk(""); }) == "$0\r\n\r\n");
    CHECK(written([](auto& r) { r.null(); }) == "$-1\r\n");
    CHECK(written([](auto& r) { r.array(3); }) == "*3\r\n");
}

TEST_CASE("an integer has one spelling") {
    CHECK(kvd::to_integer("0") == 0);
    CHECK(kvd::to_integer("-7") == -7);
    CHECK(kvd::to_integer("9223372036854775807") == INT64_MAX);
    CHECK(kvd::to_integer("-9223372036854775808") == INT64_MIN);
    for (const auto* text :
         {"", "-", "-0", "+1", "01", "-01", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "--1"})
        CHECK_FALSE(kvd::to_integer(text).has_value());
}

TEST_CASE("a byte buffer is a queue, also when it moves its bytes") {
    std::mt19937 random{3};
    kvd::byte_buffer buffer;
    std::string model;
    for (int i = 0; i < 20'000; ++i) {
        if (random() % 2) {
            const std::string more(random() % 300, static_cast<char>('a' + i % 26));
            buffer.append(more);
            model += more;
        } else {
            const std::size_t taken = model.empty() ? 0 : random() % (model.size() + 1);
            buffer.consume(taken);
            model.erase(0, taken);
        }
        REQUIRE(buffer.view() == model);
    }
}
