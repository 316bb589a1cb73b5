// swizzle: a store of objects larger than memory, read by page faults in three ways.
//
//     swizzle --pages=4096 --frames=1024 --lookups=20000
//
// A B+ tree lies in a file. A lookup follows ordinary pointers from its root; whatever page they
// lead to is read when the processor first touches it, and its references become pointers then. The
// pool has too few frames for the tree, so older pages leave, those that changed by way of the
// file.
//
// view         the cell's own page tables: handler, mapping and unmapping make no system call
// sigsegv      mmap(2) over inaccessible memory, from a signal handler
// userfaultfd  a second thread answers the faults
//
// With --transfer=copies the file itself is also reached without a system call.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "buffer_pool.hpp"
#include "object_space.hpp"
#include "page_file.hpp"
#include "tree.hpp"

namespace {

using namespace swizzle;
using stopwatch = std::chrono::steady_clock;

struct options {
    std::size_t pages = 4096, frames = 1024, lookups = 20'000;
    unsigned updates = 10;
    std::string way = "all";
    transfer how = transfer::system_calls;
    xos::mode mode = xos::mode::automatic;
};

struct result {
    double seconds = 0;
    pool_counters pool;
    std::optional<std::uint64_t> exits;
    std::size_t wrong = 0;  ///< lookups with another answer than the known one, and such pages
};

/// Random lookups of keys that are there, some of which change the value, and of some that are not.
std::size_t look_up(node* root, const options& o, std::vector<std::uint32_t>& changes) {
    std::mt19937_64 random(20261121);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < o.lookups; i++) {
        const std::size_t index = random() % changes.size();
        const std::uint64_t key = tree_layout::key_at(index);
        if (i % 16 == 0) {
            wrong += find(root, key + 1) != nullptr;
            continue;
        }
        std::uint64_t* value = find(root, key);
        if (!value || *value != tree_layout::value_of(key) + changes[index]) {
            wrong++;
            continue;
        }
        if (random() % 100 < o.updates) {
            ++*value;
            changes[index]++;
        }
    }
    return wrong;
}

void write_tree(const tree_layout& layout, page_file& store) {
    const std::vector<std::uint32_t> no_changes(layout.keys());
    node n;
    for (std::size_t page = 0; page < layout.pages(); page++) {
        layout.make(page, no_changes, n);
        store.write(page, &n);
    }
}

std::size_t wrong_pages(const tree_layout& layout, page_file& store,
                        const std::vector<std::uint32_t>& changes) {
    std::size_t wrong = 0;
    node expected, found;
    for (std::size_t page = 0; page < layout.pages(); page++) {
        layout.make(page, changes, expected);
        store.read(page, &found);
        wrong += !identical(expected, found);
    }
    return wrong;
}

result exercise(object_space& space, const options& o) {
    result r;
    const tree_layout layout(o.pages);
    page_file store(layout.pages(), o.how);
    std::optional<buffer_pool> pool;
    std::vector<std::uint32_t> changes;

    const object_space::provider provide = [&](std::size_t page, intent wanted) {
        pool->provide(page, wanted);
    };
    space.serve(provide, [&] {
        // In here, so that a cell has seen this memory before anything is counted.
        pool.emplace(space, store, o.frames);
        changes.resize(layout.keys());
        write_tree(layout, store);
        auto* root = reinterpret_cast<node*>(space.base()) + layout.root_page();
        const auto begin = stopwatch::now();
        const auto exits = space.exits();
        r.wrong = look_up(root, o, changes);
        if (exits) r.exits = *space.exits() - *exits;
        r.seconds = std::chrono::duration<double>(stopwatch::now() - begin).count();
        r.pool = pool->counters();
        pool->evict_all();
    });
    r.wrong += wrong_pages(layout, store, changes);
    return r;
}

enum class outcome { right, wrong, not_available };

outcome run(const std::string& name, const options& o) {
    try {
        const std::size_t pages = tree_layout(o.pages).pages();
        const auto space = name == "view"      ? make_view(pages, o.frames, o.mode)
                           : name == "sigsegv" ? make_sigsegv(pages, o.frames)
                                               : make_userfaultfd(pages, o.frames);
        const result r = exercise(*space, o);
        std::printf("%-11s %10.0f %8zu %8zu %9zu %8zu %8s  %s\n", name.c_str(),
                    static_cast<double>(o.lookups) / r.seconds, r.pool.faults, r.pool.reads,
                    r.pool.evictions, r.pool.writes,
                    r.exits ? std::to_string(*r.exits).c_str() : "-",
                    r.wrong ? (std::to_string(r.wrong) + " WRONG").c_str() : "right");
        return r.wrong ? outcome::wrong : outcome::right;
    } catch (const not_available& e) {
        std::printf("%-11s not available: %s\n", name.c_str(), e.what());
        return outcome::not_available;
    }
}

void declare(CLI::App& app, options& o) {
    static const std::map<std::string, transfer> transfers{{"system-calls", transfer::system_calls},
                                                           {"copies", transfer::copies}};
    std::map<std::string, xos::mode> modes;
    for (const auto m : {xos::mode::automatic, xos::mode::ring0, xos::mode::ring3, xos::mode::pvm})
        modes.emplace(xos::name(m), m);
    app.add_option("--pages", o.pages, "pages of 4 KiB in the file, at most (default 4096)")
        ->check(CLI::Range(1, 1 << 20));
    app.add_option("--frames", o.frames, "pages that are in memory at a time (default 1024)")
        ->check(CLI::Range(2, 1 << 20));
    app.add_option("--lookups", o.lookups, "random lookups (default 20000)")
        ->check(CLI::Range(1, 1 << 30));
    app.add_option("--updates", o.updates, "per cent of them that change the value (default 10)")
        ->check(CLI::Range(0, 100));
    app.add_option("--transfer", o.how,
                   "how pages are read and written: system-calls (the default), or copies from and "
                   "to a mapping of the file")
        ->transform(CLI::CheckedTransformer(transfers));
    app.add_option("--way", o.way, "view, sigsegv, userfaultfd or all (default all)")
        ->check(CLI::IsMember({"view", "sigsegv", "userfaultfd", "all"}));
    app.add_option("--mode", o.mode, "privilege mode of the cell: auto, ring0, ring3 or pvm")
        ->transform(CLI::CheckedTransformer(modes));
}

}  // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app{"swizzle: a store of objects larger than memory, read by page faults"};
    declare(app, o);
    CLI11_PARSE(app, argc, argv);

    const tree_layout layout(o.pages);
    std::printf("%zu keys in %zu pages, %zu frames\n", layout.keys(), layout.pages(), o.frames);
    std::printf("%-11s %10s %8s %8s %9s %8s %8s  %s\n", "way", "lookups/s", "faults", "reads",
                "evictions", "writes", "exits", "answers");
    try {
        bool wrong = false, any = false;
        // Linux's own ways first, before there is a virtual machine that follows its page tables.
        for (const std::string name : {"sigsegv", "userfaultfd", "view"}) {
            if (o.way != "all" && o.way != name) continue;
            std::fflush(stdout);
            const outcome done = run(name, o);
            wrong |= done == outcome::wrong;
            any |= done != outcome::not_available;
        }
        return wrong || !any ? 1 : 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "swizzle: %s\n", e.what());
        return 1;
    }
}
