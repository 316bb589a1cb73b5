// Whole programs, natively and in a cell, as a user would start them. A row's time is that of the
// program from its start to its end; the remark says what the cell had to do for it, and how much
// more memory it took.
#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "bench/harness.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

/// Beside this program in a build tree, or where it was installed.
std::string preload_library() {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    for (const fs::path& candidate :
         {here / "../lib/libxos-preload.so", fs::path(XOS_PRELOAD_INSTALLED)})
        if (fs::exists(candidate)) return fs::canonical(candidate);
    throw std::runtime_error(
        "libxos-preload.so is neither in ../lib nor in " XOS_PRELOAD_INSTALLED);
}

fs::path scratch() {
    return fs::temp_directory_path() / fmt::format("xos-bench-{}", getppid());
}

/// Starts a program whose output nobody reads, waits for its end, and returns the largest resident
/// set, in KiB, of it and its children.
long run_program(const std::vector<std::string>& words, const std::vector<std::string>& variables) {
    std::vector<char*> argv, environment;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    for (const auto& variable : variables)
        environment.push_back(const_cast<char*>(variable.c_str()));
    for (char** e = environ; *e; e++) environment.push_back(*e);
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    const int error =
        posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error) throw std::system_error(error, std::generic_category(), words.front());
    int status = 0;
    rusage used{};
    while (wait4(pid, &status, 0, &used) < 0) {
        if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "wait4");
    }
    if (status)
        throw std::runtime_error(
            fmt::format("{} ended with wait status {}", words.front(), status));
    return used.ru_maxrss;
}

/// What --stats=json has said of a program and its children.
std::uint64_t count_exits(const fs::path& file) {
    std::uint64_t exits = 0;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);)
        exits += nlohmann::json::parse(line).at("runs").get<std::uint64_t>();
    return exits;
}

struct program {
    std::vector<std::string> words;
    void (*prepare)() = nullptr;  ///< its input, made once
};

template <const program& P>
void natively(std::uint64_t operations) {
    for (; operations; operations--) run_program(P.words, {});
}

template <const program& P>
void in_a_cell(std::uint64_t operations) {
    const std::string preload = "LD_PRELOAD=" + preload_library();
    for (; operations; operations--) run_program(P.words, {preload});
}

template <const program& P>
void prepare() {
    fs::create_directories(scratch());
    fs::current_path(scratch());
    if (P.prepare) P.prepare();
}

template <const program& P>
void prepare_and_look() {
    prepare<P>();
    const fs::path file = scratch() / "stats";
    fs::remove(file);
    const long native = run_program(P.words, {});
    const long cell = run_program(
        P.words, {"LD_PRELOAD=" + preload_library(), "XOS_STATS=json:" + file.string()});
    remark(fmt::format("{} exits, {:+.1f} MiB resident", count_exits(file),
                       static_cast<double>(cell - native) / 1024));
}

void clean_up() {
    fs::current_path("/");
    fs::remove_all(scratch());
}

template <const program& P>
registration row(const char* name, const char* note) {
    return registration({.suite = "app",
                         .name = name,
                         .note = note,
                         .linux_way = side{.where = place::own_process,
                                           .setup = prepare<P>,
                                           .run = natively<P>,
                                           .teardown = clean_up,
                                           .most = 1},
                         .xos_way = {.where = place::own_process,
                                     .setup = prepare_and_look<P>,
                                     .run = in_a_cell<P>,
                                     .teardown = clean_up,
                                     .most = 1},
                         .counted_operations = 1,
                         .most_rounds = 7});
}

/// Text that can be compressed, the same each time.
void write_text() {
    std::ofstream text("text");
    std::uint64_t x = 1;
    for (unsigned line = 0; line < 400'000; line++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        text << line << ' ' << (x >> 40) << " a line of a log, as there are many\n";
    }
}

constexpr const char* insert_many =
    "create table t(a integer primary key, b text); with recursive c(i) as (select 1 union all "
    "select i+1 from c where "
    "i < 300000) insert into t select i, 'value ' || i from c; create index j on t(b); select "
    "count(*), max(b) from t;";

const program true_program{{"/bin/true"}};
const program many_execs{{"/bin/bash", "-c", "for i in $(seq 50); do /bin/true; done"}};
const program gzip_program{{"/bin/gzip", "-6", "-k", "-f", "text"}, write_text};
const program openssl_program{{"/usr/bin/openssl", "dgst", "-sha512", "-r", "text"}, write_text};
const program sqlite_memory{{"/usr/bin/sqlite3", ":memory:", insert_many}};
const program sqlite_file{
    {"/bin/sh", "-c",
     std::string("rm -f db; exec sqlite3 db \"pragma journal_mode=wal; ") + insert_many + "\""}};
const program python_program{{"/usr/bin/python3", "-c",
                              "import json, re; d = [{'n': i, 's': str(i) * 3} for i in "
                              "range(60000)]; t = json.dumps(d); print(len(json.loads(t)), "
                              "sum(x['n'] for x in d), len(re.findall('7+', t)))"}};
const program perl_program{
    {"/usr/bin/perl", "-e", "my %h; $h{$_ % 9973} .= $_ for 1..700000; print scalar(keys %h)"}};
const program list_program{{"/bin/ls", "-lR", "/usr/share/doc"}};
const program sort_program{{"/usr/bin/sort", "-k2n", "-o", "sorted", "text"}, write_text};

const registration rows[] = {
    row<true_program>("start", "/bin/true, from start to end"),
    row<many_execs>("fork-exec-50", "bash, which starts /bin/true 50 times"),
    row<gzip_program>("gzip", "25 MB of text"),
    row<openssl_program>("openssl-dgst", "SHA-512 of 25 MB"),
    row<sqlite_memory>("sqlite-memory", "300,000 rows and an index, in memory"),
    row<sqlite_file>("sqlite-file", "the same in a file, with a write-ahead log"),
    row<python_program>("python", "JSON, dictionaries and regular expressions"),
    row<perl_program>("perl", "a hash of strings"),
    row<sort_program>("sort", "25 MB of text by a number"),
    row<list_program>("ls", "ls -lR: system calls and nothing else"),
};

}  // namespace

}  // namespace xos::bench
