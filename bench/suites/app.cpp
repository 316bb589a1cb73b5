// Whole programs, natively and in a cell, as a user would start them. A row's time is that of the
// program from its start to its end; the remark says what the cell had to do for it, and how much
// more memory it took.
#include <fmt/core.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "bench/harness.hpp"
#include "bench/suites/app_processes.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

struct program {
    command words;
    void (*prepare)() = nullptr;  ///< its input, made once
};

template <const program& P>
void natively(std::uint64_t operations) {
    for (; operations; operations--) run_program(P.words, {});
}

template <const program& P>
void by_preload(std::uint64_t operations) {
    const auto variables = in_a_cell();
    for (; operations; operations--) run_program(P.words, variables);
}

template <const program& P>
void prepare() {
    fs::current_path(scratch());
    if (P.prepare) P.prepare();
}

template <const program& P>
void prepare_and_look() {
    prepare<P>();
    const fs::path file = scratch() / "stats";
    fs::remove(file);
    const long native = run_program(P.words, {}).ru_maxrss;
    const long cell = run_program(P.words, in_a_cell_with_stats(file)).ru_maxrss;
    remark(fmt::format("{} exits, {:+.1f} MiB resident", count_exits(file),
                       static_cast<double>(cell - native) / 1024));
}

template <const program& P>
registration row(const char* name, const char* note) {
    return registration({.suite = "app",
                         .name = name,
                         .note = note,
                         .linux_way = side{.where = place::own_process,
                                           .setup = prepare<P>,
                                           .run = natively<P>,
                                           .teardown = remove_scratch,
                                           .most = 1},
                         .xos_way = {.where = place::own_process,
                                     .setup = prepare_and_look<P>,
                                     .run = by_preload<P>,
                                     .teardown = remove_scratch,
                                     .most = 1},
                         .counted_operations = 1,
                         .most_rounds = 7,
                         .only_in = unit::time,
                         .processors = 2});
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

/// Temporary files are in memory, too, or the index would be sorted by system calls.
constexpr const char* insert_many =
    "pragma temp_store=memory; create table t(a integer primary key, b text); with recursive c(i) "
    "as (select 1 union all "
    "select i+1 from c where "
    "i < 300000) insert into t select i, 'value ' || i from c; create index j on t(b); select "
    "count(*), max(b) from t;";

const program true_program{{"/bin/true"}};
const program dash_execs{
    {"/bin/dash", "-c", "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done"}};
const program bash_execs{{"/bin/bash", "-c", "for i in $(seq 50); do /bin/true; done"}};
const program gzip_program{{"/bin/gzip", "-6", "-k", "-f", "text"}, write_text};
const program dgst_program{{"/usr/bin/openssl", "dgst", "-sha512", "-r", "text"}, write_text};
// 5,000 rounds of SHA-512 for each word.
const program crypt_program{
    {"/bin/sh", "-c", "seq 60 | exec openssl passwd -6 -salt benchmark -stdin"}};
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
    row<dash_execs>("fork-exec-50", "dash, which starts /bin/true 50 times"),
    row<bash_execs>("fork-exec-50-bash",
                    "bash, which does, with nine calls for its signal mask each"),
    row<gzip_program>("gzip", "25 MB of text"),
    row<crypt_program>("openssl-passwd",
                       "60 passwords of 5,000 rounds of SHA-512: no system calls"),
    row<dgst_program>("openssl-dgst", "SHA-512 of 25 MB, read by 8 KiB"),
    row<sqlite_memory>("sqlite-memory", "300,000 rows and an index, in memory"),
    row<sqlite_file>("sqlite-file", "the same in a file, with a write-ahead log"),
    row<python_program>("python", "JSON, dictionaries and regular expressions"),
    row<perl_program>("perl", "a hash of strings"),
    row<sort_program>("sort", "25 MB of text by a number"),
    row<list_program>("ls", "ls -lR: system calls and nothing else"),
};

}  // namespace

}  // namespace xos::bench
