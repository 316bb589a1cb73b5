// Random edits of two ranges against a model of their pages, with a TLB that remembers what it was
// not told to forget.
#include "libxos/paging/range_edits.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <vector>

#include "tests/paging/page_walk.hpp"

namespace {

using namespace xos;
using namespace xos::paging;
using namespace page_walk;

constexpr unsigned physical_bits = 46;
constexpr u64 accessed = 0x20, dirty = 0x40;

/// Table pages of one piece of memory, as the system arena's are.
class flat_frames {
  public:
    gpa allocate() { return gpa(reinterpret_cast<u64>(&pages_[used_++]) + offset()); }
    void release(gpa) { FAIL("a table page given back"); }
    arch::entry* table(gpa page) const {
        return reinterpret_cast<arch::entry*>(page.value - offset());
    }
    std::size_t in_use() const { return used_; }
    u64 offset() const { return (u64{1} << 32) - reinterpret_cast<u64>(pages_.get()); }

  private:
    struct alignas(kib4) table_page {
        arch::entry entries[512];
    };
    std::unique_ptr<table_page[]> pages_{new table_page[32]};
    std::size_t used_ = 0;
};

struct model_page {
    bool mapped = false, leaving = false;
    vm::access allowed = vm::access::none;
    u64 frame = 0, use = 0;
};

/// A range with what its pages ought to be.
struct modelled {
    static constexpr u64 pieces = 3;
    struct model_piece {
        bool large = false, untouched = false;
    };

    template <class Tables>
    modelled(Tables& tables, gva begin, level fine, u64 physical_offset) {
        r.begin = begin;
        r.fine_shift = arch::shift_of(fine);
        r.coarse_shift = r.fine_shift + 9;
        r.tables = tagged.data();
        r.coarse = entries.data();
        r.physical_offset = physical_offset;
        const u64 length = pieces << r.coarse_shift;
        REQUIRE(attach_tables(r, tables, length) == status::ok);
        r.length = length;
    }

    gva page(u64 i) const { return r.begin + (i << r.fine_shift); }
    model_piece& piece_of(u64 i) { return piece[i / 512]; }

    void open_up(u64 i) {
        model_piece& p = piece_of(i);
        if (p.untouched) {
            for (u64 n = i / 512 * 512; n < (i / 512 + 1) * 512; n++) make_touched(n);
        }
        p = {};
    }
    void make_touched(u64 i) {
        pages[i].allowed = vm::access::read_write;
        pages[i].use = accessed | dirty;
    }
    /// Calls whole(first) for each whole piece that it accepts, and each(page) for all other pages,
    /// whose pieces have tables then.
    template <class Accepts, class Whole, class Each>
    void for_each_part(u64 first, u64 count, Accepts&& accepts, Whole&& whole, Each&& each) {
        for (u64 i = first; i < first + count;) {
            if (i % 512 == 0 && first + count - i >= 512 && accepts(i)) {
                whole(i);
                i += 512;
                continue;
            }
            open_up(i);
            each(i++);
        }
    }

    table_range r;
    std::array<std::atomic<u64>, pieces> tagged{};
    std::array<arch::entry*, pieces> entries{};
    std::array<model_piece, pieces> piece{};
    std::array<model_page, pieces * 512> pages{};
};

class range_trial {
  public:
    range_trial(u64 seed, level fine)
        : random_(seed),
          tables_(frames_, {.physical_bits = physical_bits}),
          cpu_(frames_, physical_bits) {
        REQUIRE(tables_.create() == status::ok);
        for (u64 n = 0; n < 2; n++)
            both_[n] =
                std::make_unique<modelled>(tables_, gva((n + 1) << 42), fine, frames_.offset());
    }

    void run(unsigned operations) {
        for (unsigned i = 0; i < operations; i++) {
            for (unsigned n = 0; n < 8; n++) use_a_page();
            stale_pages stale;
            step(stale);
            forget(stale);
            check_tlb();
            if (i % 16 == 0) compare();
        }
        compare();
    }

  private:
    struct part {
        modelled& m;
        u64 first, count;
        gva begin() const { return m.page(first); }
        u64 length() const { return count << m.r.fine_shift; }
    };
    part random_part() {
        modelled& m = *both_[pick(random_, 2)];
        if (pick(random_, 3) == 0) {
            const u64 first = pick(random_, modelled::pieces);
            return {m, first * 512, (1 + pick(random_, modelled::pieces - first)) * 512};
        }
        const u64 first = pick(random_, m.pages.size());
        const u64 most = std::min(m.pages.size() - first, one_of(random_, {1, 9, 700}));
        return {m, first, 1 + pick(random_, most)};
    }
    vm::access random_access() {
        constexpr u64 kinds[] = {0, 1, 3, 5, 7};
        return static_cast<vm::access>(one_of(random_, kinds));
    }
    u64 random_frame(const part& p) {
        const u64 aligned = (1 + pick(random_, 8)) << p.m.r.coarse_shift;
        const u64 inside = p.first % 512 << p.m.r.fine_shift;
        return pick(random_, 4) ? aligned + inside : aligned + (u64{1} << p.m.r.fine_shift);
    }

    void step(stale_pages& stale) {
        const part p = random_part();
        switch (pick(random_, 12)) {
            case 0:
            case 1:
            case 2:
                return map(p, stale);
            case 3:
                return unmap(p, stale);
            case 4:
            case 5:
                return protect(p, stale);
            case 6:
                return move(p, stale);
            case 7:
                split_range(p.m.r, p.begin(), p.length(), stale);
                for (u64 i = p.first; i < p.first + p.count; i++) p.m.open_up(i);
                return;
            case 8:
                return merge(p, stale);
            case 9:
                return map_untouched(p, stale);
            case 10:
                return edit_entry(p, stale);
            default:
                return scan(p, stale);
        }
    }

    void map(const part& p, stale_pages& stale) {
        const u64 first = random_frame(p), size = u64{1} << p.m.r.fine_shift;
        const vm::access a = random_access();
        const u64 use = one_of(random_, {0, 0x60});
        const bool large = p.m.r.has_large_leaves() && pick(random_, 2);
        map_range(p.m.r, p.begin(), p.length(), gpa(first), a,
                  large ? p.m.r.coarser() : p.m.r.fine(), stale,
                  static_cast<arch::entry_flags>(use));
        const auto frame = [&](u64 i) { return first + (i - p.first) * size; };
        const auto set = [&](u64 i) { p.m.pages[i] = {true, false, a, frame(i), use}; };
        p.m.for_each_part(
            p.first, p.count, [&](u64 i) { return large && frame(i) % (512 * size) == 0; },
            [&](u64 i) {
                p.m.piece_of(i) = {.large = true};
                for (u64 n = i; n < i + 512; n++) set(n);
            },
            set);
    }

    void unmap(const part& p, stale_pages& stale) {
        const bool release = pick(random_, 3) == 0;
        unmap_range(p.m.r, p.begin(), p.length(), release, stale);
        std::vector<u64> expected, freed;
        p.m.for_each_part(
            p.first, p.count, [&](u64 i) { return p.m.piece_of(i).large && !release; },
            [&](u64 i) {
                p.m.piece_of(i) = {};
                for (u64 n = i; n < i + 512; n++) p.m.pages[n] = {};
            },
            [&](u64 i) {
                if (release && p.m.pages[i].mapped) expected.push_back(p.m.pages[i].frame);
                p.m.pages[i] = {};
            });
        if (!release) return;
        for_each_leaving(p.m.r, p.begin(), p.length(), [&](gpa f) { freed.push_back(f.value); });
        if (freed != expected) FAIL("other frames are leaving than were mapped");
    }

    void protect(const part& p, stale_pages& stale) {
        const vm::access a = random_access();
        protect_range(p.m.r, p.begin(), p.length(), a, stale);
        const auto change = [&](u64 i) {
            if (p.m.pages[i].mapped) p.m.pages[i].allowed = a;
        };
        p.m.for_each_part(
            p.first, p.count, [&](u64 i) { return p.m.piece_of(i).large; },
            [&](u64 i) {
                p.m.piece_of(i).untouched = false;
                for (u64 n = i; n < i + 512; n++) change(n);
            },
            change);
    }

    void move(const part& p, stale_pages& stale) {
        modelled& to = *both_[&p.m == both_[0].get()];
        const u64 first = pick(random_, to.pages.size() - p.count + 1);
        move_range(p.m.r, p.begin(), p.length(), to.r, to.page(first), stale);
        for (u64 i = 0; i < p.count; i++) {
            p.m.open_up(p.first + i);
            to.open_up(first + i);
            to.pages[first + i] = std::exchange(p.m.pages[p.first + i], {});
        }
    }

    void merge(const part& p, stale_pages& stale) {
        merge_range(p.m.r, p.begin(), p.length(), stale);
        if (!p.m.r.has_large_leaves()) return;
        const u64 size = u64{1} << p.m.r.fine_shift;
        for (u64 i = (p.first + 511) / 512 * 512; i + 512 <= p.first + p.count; i += 512) {
            const model_page first = p.m.pages[i];
            u64 use = 0;
            bool alike = !p.m.piece_of(i).large && first.mapped && first.allowed != vm::access::none &&
                         first.frame % (512 * size) == 0;
            for (u64 n = 0; n < 512 && alike; n++) {
                const model_page& next = p.m.pages[i + n];
                alike = next.mapped && next.allowed == first.allowed &&
                        next.frame == first.frame + n * size;
                use |= next.use;
            }
            if (!alike) continue;
            p.m.piece_of(i).large = true;
            for (u64 n = 0; n < 512; n++) p.m.pages[i + n].use = use;
        }
    }

    void map_untouched(const part& p, stale_pages& stale) {
        if (p.m.r.fine() != level::page_4k) return;
        for (u64 i = p.first; i < p.first + p.count; i++)
            if (p.m.pages[i].mapped) return;
        const u64 first = random_frame(p), size = u64{1} << p.m.r.fine_shift;
        map_untouched_range(p.m.r, p.begin(), p.length(), gpa(first), stale);
        const auto frame = [&](u64 i) { return first + (i - p.first) * size; };
        p.m.for_each_part(
            p.first, p.count, [&](u64 i) { return frame(i) % (512 * size) == 0; },
            [&](u64 i) {
                p.m.piece_of(i) = {.large = true, .untouched = true};
                for (u64 n = i; n < i + 512; n++)
                    p.m.pages[n] = {true, false, vm::access::none, frame(n), 0};
            },
            [&](u64 i) {
                p.m.pages[i] = {true, false, vm::access::read_write, frame(i), accessed | dirty};
            });
    }

    void edit_entry(const part& p, stale_pages& stale) {
        const u64 i = p.first;
        model_page& page = p.m.pages[i];
        modelled::model_piece& piece = p.m.piece_of(i);
        if (make_present(p.m.r, p.begin()) != piece.untouched) FAIL("make_present: wrong answer");
        if (piece.untouched) {
            piece.untouched = false;
            for (u64 n = i / 512 * 512; n < (i / 512 + 1) * 512; n++) p.m.make_touched(n);
        }
        arch::entry* const slot = p.m.r.slot_of(p.begin());
        if ((slot == nullptr) != piece.large) FAIL("slot_of: wrong about the table");
        if (!slot || p.m.r.fine() != level::page_4k) return;
        if (slot != p.m.r.slot_of_4k(p.begin())) FAIL("slot_of_4k: another slot");
        const vm::access a = random_access();
        if (pick(random_, 2)) {
            bool shrank = false;
            if (change_access_now(*slot, a, shrank) != page.mapped) FAIL("wrong about a mapping");
            if (page.mapped) page.allowed = a;
            if (shrank) stale.add(p.begin());
            return;
        }
        const u64 frame = page.mapped && pick(random_, 2) ? page.frame : kib4 * pick(random_, 99);
        const auto bits = [](vm::access x) { return static_cast<unsigned>(x); };
        const bool fits =
            !page.mapped || (frame == page.frame && (bits(page.allowed) & ~bits(a)) == 0);
        if (map_or_widen(*slot, gpa(frame), a) != fits) FAIL("map_or_widen: wrong answer");
        if (fits) page = {true, false, a, frame, accessed | dirty};
    }

    void scan(const part& p, stale_pages& stale) {
        const u64 flags = one_of(random_, {0x20, 0x40, 0x60});
        const bool clear = pick(random_, 2);
        std::vector<u64> bitmap((p.count + 63) / 64, ~u64{0}), expected(bitmap.size());
        const u64 found =
            scan_range(p.m.r, p.begin(), p.length(),
                       {.flags = flags, .clear = clear, .bitmap = bitmap.data()}, stale);
        u64 used = 0;
        for (u64 i = p.first; i < p.first + p.count; i++) {
            if (!p.m.pages[i].mapped || !(p.m.pages[i].use & flags)) continue;
            expected[(i - p.first) / 64] |= u64{1} << (i - p.first) % 64;
            used++;
        }
        if (bitmap != expected || found != used) FAIL("scan: other pages than were used");
        if (!clear) return;
        for (u64 i = p.first; i < p.first + p.count; i++) {
            p.m.pages[i].use &= ~flags;
            if (!p.m.piece_of(i).large) continue;
            for (u64 n = i / 512 * 512; n < (i / 512 + 1) * 512; n++) p.m.pages[n].use &= ~flags;
        }
    }

    // ---- the processor

    /// Reads or writes a page, through a cached translation or one that is cached now.
    void use_a_page() {
        modelled& m = *both_[pick(random_, 2)];
        const u64 i = pick(random_, m.pages.size());
        const u64 address = m.page(i).value;
        const auto now = cpu_.walk(tables_.root(), address);
        if (!now) return;
        const u64 set = now->flags & 2 && pick(random_, 2) ? accessed | dirty : accessed;
        const auto leaf = cpu_.walk(tables_.root(), address, set);
        const bool large = m.piece_of(i).large;
        const u64 first = large ? i / 512 * 512 : i;
        for (u64 n = first; n < first + (large ? 512 : 1); n++) m.pages[n].use |= set;
        tlb_[leaf->page] = *leaf;
    }
    void forget(const stale_pages& stale) {
        if (stale.all()) return tlb_.clear();
        stale.for_each([&](gva page) {
            std::erase_if(tlb_, [&](const auto& cached) {
                return page.value - cached.first < bytes_of(cached.second.level);
            });
        });
    }
    /// Nothing that is cached allows more than the tables do, or makes the CPU skip setting a bit.
    void check_tlb() {
        for (const auto& [page, cached] : tlb_) {
            const u64 offset = pick(random_, 512) * (bytes_of(cached.level) / 512);
            const auto now = cpu_.peek(tables_.root(), page + offset);
            if (!now) FAIL("a translation stays that the tables do not have");
            if (now->frame + (page + offset - now->page) != cached.frame + offset)
                FAIL("a translation to another frame stays");
            if (cached.flags & ~now->flags & (2 | accessed | dirty)) FAIL("a right or use stays");
            if (~cached.flags & now->flags & u64{1} << 63) FAIL("a right to execute stays");
        }
    }

    void compare() {
        for (const auto& m : both_) {
            for (u64 i = 0; i < m->pages.size(); i++) compare(*m, i);
        }
    }
    void compare(modelled& m, u64 i) {
        const model_page& page = m.pages[i];
        const modelled::model_piece& piece = m.piece_of(i);
        const arch::entry said = m.r.covering(m.page(i));
        const arch::entry own = m.r.as_small_leaf(m.page(i));
        INFO("page " << i << " entry " << std::hex << said.bits);
        if (m.r.is_replaced(i / 512) != piece.large) FAIL("a large leaf too many or too few");
        if (is_untouched(said) != piece.untouched) FAIL("wrong about being touched");
        if (is_mapped(said) != page.mapped || is_mapped(own) != page.mapped)
            FAIL("wrong about a mapping");
        if (page.mapped && frame_of(own) != gpa(page.frame)) FAIL("another frame");
        if (access_of(said) != page.allowed) FAIL("another access");
        const auto seen = cpu_.peek(tables_.root(), m.page(i).value);
        if (seen.has_value() != (page.allowed != vm::access::none)) FAIL("the CPU sees otherwise");
        if (!page.mapped && said != arch::entry{}) FAIL("an unmapped entry that is not empty");
        if (!seen) return;
        const unsigned bits = static_cast<unsigned>(page.allowed);
        const u64 flags = 5 | (bits & 2 ? 2 : 0) | (bits & 4 ? 0 : u64{1} << 63) | page.use;
        if ((seen->flags & ~u64{0x80}) != flags) FAIL("other flags: " << seen->flags);
        if (seen->frame + (m.page(i).value - seen->page) != page.frame) FAIL("the CPU's frame");
    }

    generator random_;
    flat_frames frames_;
    page_tables<flat_frames> tables_;
    cpu<flat_frames> cpu_;
    std::unique_ptr<modelled> both_[2];
    std::map<u64, cpu_leaf> tlb_;
};

}  // namespace

TEST_CASE("random edits of ranges leave the pages that the model predicts", "[paging]") {
#ifdef __SANITIZE_ADDRESS__
    constexpr u64 seeds = 12;
#else
    constexpr u64 seeds = 120;
#endif
    for (const level fine : {level::page_4k, level::page_2m, level::page_1g}) {
        for (u64 seed = 0; seed < seeds; seed++) {
            INFO("seed " << seed << ", smallest leaf level " << static_cast<unsigned>(fine));
            range_trial(seed, fine).run(200);
        }
    }
    SUCCEED();
}

TEST_CASE("a copied range shares its frames, and on demand until somebody writes", "[paging]") {
    flat_frames frames;
    page_tables tables(frames, {.physical_bits = physical_bits});
    REQUIRE(tables.create() == status::ok);
    modelled from(tables, gva(u64{1} << 40), level::page_4k, frames.offset());
    modelled to(tables, gva(u64{2} << 40), level::page_4k, frames.offset());
    stale_pages none;
    map_range(from.r, from.page(0), mib2, gpa(mib2), vm::access::read_write, level::page_2m, none);
    map_range(from.r, from.page(512), kib4, gpa(kib4), vm::access::read, level::page_4k, none);
    map_range(from.r, from.page(513), kib4, gpa(2 * kib4), vm::access::read_write, level::page_4k,
              none);
    map_range(from.r, from.page(514), kib4, gpa(3 * kib4), vm::access::none, level::page_4k, none);
    const auto same = [&] {
        for (u64 i = 0; i < from.pages.size(); i++)
            if (from.r.covering(from.page(i)) != to.r.covering(to.page(i))) return false;
        return true;
    };

    stale_pages stale;
    copy_entries(from.r, to.r, copying::as_it_is, stale);
    CHECK(same());
    CHECK_FALSE(stale.any());
    CHECK(access_of(to.r.covering(to.page(513))) == vm::access::read_write);

    copy_entries(from.r, to.r, copying::until_written, stale);
    CHECK(same());
    std::vector<gva> pages;
    stale.for_each([&](gva page) { pages.push_back(page); });
    CHECK(pages == std::vector{from.page(0), from.page(513)});
    for (const u64 i : {0, 511, 513}) {
        const arch::entry e = to.r.covering(to.page(i));
        CHECK(access_of(e) == vm::access::read);
        CHECK(e.has(copied_on_write));
    }
    CHECK_FALSE(to.r.covering(to.page(512)).has(copied_on_write));
    CHECK_FALSE(to.r.covering(to.page(514)).has(copied_on_write));
    const arch::entry mine = once_written(to.r.covering(to.page(513)), gpa(9 * kib4));
    CHECK(access_of(mine) == vm::access::read_write);
    CHECK_FALSE(mine.has(copied_on_write));
    CHECK(frame_of(mine) == gpa(9 * kib4));
}

TEST_CASE("more stale pages than can be named are all pages", "[paging]") {
    stale_pages stale;
    CHECK_FALSE(stale.any());
    for (u64 i = 0; i < stale_pages::capacity; i++) stale.add(gva(i * kib4));
    CHECK_FALSE(stale.all());
    u64 sum = 0;
    stale.for_each([&](gva page) { sum += page.value / kib4; });
    CHECK(sum == stale_pages::capacity * (stale_pages::capacity - 1) / 2);
    stale.add(gva(0));
    CHECK(stale.all());
    stale.clear();
    CHECK_FALSE(stale.any());
    stale.add_all();
    CHECK(stale.all());
}
