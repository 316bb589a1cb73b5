// gc_dirty: an incremental checkpointer that finds changed pages in three ways.
//
//     gc_dirty --pages=16384 --epochs=10 --writes=4096
//
// In each epoch a mutator overwrites random records of a table, then the checkpointer finds the
// pages that changed and appends them to a log. A generational or concurrent collector asks the
// same question, of its old objects. At the end the log is replayed and must give the table, byte
// by byte.
//
// dirty       reads the dirty bits of the cell's own page tables: no fault, no signal, no system
// call mprotect    takes a SIGSEGV for each page soft-dirty  asks Linux by /proc/self/clear_refs
// and /proc/self/pagemap
//
// Times and exits are those of writing and of finding; the log is not counted.
#include <CLI/CLI.hpp>
#include <bit>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "checkpoint_log.hpp"
#include "mutator.hpp"
#include "tracked_memory.hpp"

namespace {

using namespace gc_dirty;
using stopwatch = std::chrono::steady_clock;

struct options {
    mutator_options table;
    unsigned epochs = 10;
    std::string way = "all";
    xos::mode mode = xos::mode::automatic;
};

struct result {
    std::size_t found = 0;
    stopwatch::duration mutating{}, finding{};
    std::uint64_t exits = 0;
    bool in_cell = false, replayed = false;
};

result checkpoint(tracked_memory& memory, const options& o) {
    result r;
    checkpoint_log log;
    mutator writer(o.table);
    page_set changed(o.table.pages);

    changed.fill();
    log.append(changed, memory.data());
    memory.start_tracking();
    for (unsigned epoch = 0; epoch < o.epochs; epoch++) {
        const auto begin = stopwatch::now();
        const std::uint64_t exits_before = memory.exits().value_or(0);
        writer.run(memory.data());
        const auto written = stopwatch::now();
        memory.take_changed(changed);
        r.finding += stopwatch::now() - written;
        r.mutating += written - begin;
        r.exits += memory.exits().value_or(0) - exits_before;
        r.found += changed.size();
        log.append(changed, memory.data());
    }

    r.in_cell = memory.exits().has_value();
    std::vector<std::byte> copy(o.table.pages * xos::page_size);
    r.replayed = log.replay(copy) == o.epochs + 1 &&
                 std::memcmp(copy.data(), memory.data(), copy.size()) == 0;
    return r;
}

double milliseconds(stopwatch::duration d) {
    return std::chrono::duration<double, std::milli>(d).count();
}

enum class outcome { replayed, differs, not_available };

outcome run(const std::string& name, const options& o) {
    try {
        const auto memory = name == "dirty"      ? make_dirty_bits(o.table.pages, o.mode)
                            : name == "mprotect" ? make_mprotect(o.table.pages)
                                                 : make_soft_dirty(o.table.pages);
        result r;
        memory->inside([&] { r = checkpoint(*memory, o); });
        std::printf("%-11s %10zu %12.2f %12.2f %8s  %s\n", name.c_str(), r.found,
                    milliseconds(r.mutating), milliseconds(r.finding),
                    r.in_cell ? std::to_string(r.exits).c_str() : "-",
                    r.replayed ? "identical" : "DIFFERS");
        return r.replayed ? outcome::replayed : outcome::differs;
    } catch (const not_available& e) {
        std::printf("%-11s not available: %s\n", name.c_str(), e.what());
        return outcome::not_available;
    }
}

void declare(CLI::App& app, options& o) {
    std::map<std::string, xos::mode> modes;
    for (const auto m : {xos::mode::automatic, xos::mode::ring0, xos::mode::ring3, xos::mode::pvm})
        modes.emplace(xos::name(m), m);
    const auto power_of_two = [](const std::string& text) {
        std::size_t value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && value >= 8 &&
                          value <= xos::page_size && std::has_single_bit(value);
        return good ? std::string() : "must be a power of two from 8 to 4096, not " + text;
    };
    app.add_option("--pages", o.table.pages, "pages of 4 KiB in the table (default 16384)")
        ->check(CLI::Range(1, 1 << 20));
    app.add_option("--epochs", o.epochs, "rounds of writing and checkpointing (default 10)")
        ->check(CLI::Range(1, 1 << 20));
    app.add_option("--writes", o.table.writes, "records overwritten in an epoch (default 4096)")
        ->check(CLI::Range(0, 1 << 30));
    app.add_option("--record", o.table.record, "bytes of a record (default 64)")
        ->check(CLI::Validator(power_of_two, "POWER OF TWO"));
    app.add_option("--hot", o.table.hot, "per cent of the table that is written to (default 100)")
        ->check(CLI::Range(1, 100));
    app.add_option("--way", o.way, "dirty, mprotect, soft-dirty or all (default all)")
        ->check(CLI::IsMember({"dirty", "mprotect", "soft-dirty", "all"}));
    app.add_option("--mode", o.mode, "privilege mode of the cell: auto, ring0, ring3 or pvm")
        ->transform(CLI::CheckedTransformer(modes));
}

}  // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app{"gc_dirty: an incremental checkpointer that finds changed pages in three ways"};
    declare(app, o);
    CLI11_PARSE(app, argc, argv);

    std::printf("%zu pages, %u epochs of %zu writes\n", o.table.pages, o.epochs, o.table.writes);
    std::printf("%-11s %10s %12s %12s %8s  %s\n", "way", "found", "mutator ms", "finding ms",
                "exits", "replay");
    try {
        bool differs = false, any = false;
        // Linux's own ways first, before there is a virtual machine that follows its page tables.
        for (const std::string name : {"mprotect", "soft-dirty", "dirty"}) {
            if (o.way != "all" && o.way != name) continue;
            const outcome done = run(name, o);
            differs |= done == outcome::differs;
            any |= done != outcome::not_available;
        }
        return differs || !any ? 1 : 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "gc_dirty: %s\n", e.what());
        return 1;
    }
}
