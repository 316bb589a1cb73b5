// Signals among threads: which one gets them, inside and outside, and what they do to its waiting.
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cstdlib>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::atomic<int> count{0};
std::atomic<bool> flag{false};

void counting(int) {
    count++;
}

}  // namespace

TEST_CASE("pthread_kill reaches a thread that spins") {
    handle(SIGUSR1, counting);
    const int seen = same([] {
        count = 0;
        flag = false;
        std::thread spinning([] {
            flag = true;
            while (count < 20) _mm_pause();
        });
        eventually([] { return flag.load(); });
        for (int i = 0; i < 20; i++) {
            pthread_kill(spinning.native_handle(), SIGUSR1);
            if (!eventually([i] { return count > i; })) abort();
        }
        spinning.join();
        return count.load();
    });
    CHECK(seen == 20);
}

TEST_CASE("signals to many threads all arrive") {
    constexpr int threads = 8, each = 50;
    static thread_local volatile int mine;
    handle(
        SIGRTMIN + 4,
        [](int) {
            mine = mine + 1;
            count++;
        },
        SA_RESTART);
    const int seen = in_cell([] {
        std::atomic<int> wrong{0}, ready{0};
        std::vector<std::thread> all;
        for (int i = 0; i < threads; i++) {
            all.emplace_back([&] {
                ready++;
                const bool came =
                    eventually([] { return (void)syscall(SYS_getppid), mine == each; });
                if (!came) wrong++;
            });
        }
        eventually([&] { return ready == threads; });
        for (int n = 0; n < each; n++) {
            for (auto& t : all) pthread_kill(t.native_handle(), SIGRTMIN + 4);
        }
        for (auto& t : all) t.join();
        return wrong.load();
    });
    CHECK(seen == 0);
    CHECK(count == threads * each);
}

TEST_CASE("threads are cancelled where they wait and where they compute") {
    const auto results = same([] {
        std::vector<int> all;
        for (bool asynchronous : {false, true}) {
            flag = false;
            count = 0;
            struct cleaned {
                ~cleaned() { count++; }
            };
            pthread_t t;
            const auto body = [](void* a) -> void* {
                cleaned guard;
                if (a) {
                    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
                    flag = true;
                    for (;;) asm volatile("pause");
                }
                flag = true;
                for (;;) pause();
                return nullptr;
            };
            pthread_create(&t, nullptr, body, asynchronous ? &all : nullptr);
            eventually([] { return flag.load(); });
            all.push_back(pthread_cancel(t));
            void* result = nullptr;
            pthread_join(t, &result);
            all.push_back(result == PTHREAD_CANCELED);
            if (!asynchronous) all.push_back(count);
        }
        return all;
    });
    CHECK(results == std::vector<int>{0, 1, 1, 0, 1});
}

TEST_CASE("a signal to a thread outside is handled outside while others are inside") {
    static std::atomic<int> where;
    where = -1;
    handle(SIGUSR1, [](int) { where = inside(); });
    ensure_cell();
    std::atomic<bool> ready{false}, done{false};
    std::thread outside([&] {
        ready = true;
        eventually([&] { return where != -1 && done.load(); });
    });
    eventually([&] { return ready.load(); });
    enter();
    pthread_kill(outside.native_handle(), SIGUSR1);
    const bool came = eventually([] { return where != -1; });
    const int first = where;
    where = -1;
    raise(SIGUSR1);
    const int second = where;
    leave();
    where = -1;
    done = true;
    pthread_kill(outside.native_handle(), SIGUSR1);
    eventually([] { return where != -1; });
    outside.join();
    CHECK(came);
    CHECK(first == 0);
    CHECK(second == 1);
}

TEST_CASE("signals while threads enter and leave are all handled") {
    static std::atomic<unsigned> handled;
    handled = 0;
    handle(SIGRTMIN + 5, [](int) { handled++; });
    ensure_cell();
    std::atomic<bool> stop{false};
    std::thread moving([&] {
        while (!stop) {
            enter();
            leave();
        }
    });
    unsigned sent = 0;
    for (; sent < 300; sent++) {
        if (pthread_kill(moving.native_handle(), SIGRTMIN + 5)) break;
        if (sent % 3 == 0) std::this_thread::yield();
    }
    const bool all = eventually([&] { return handled == sent; });
    stop = true;
    moving.join();
    CHECK(all);
    CHECK(handled == 300);
}

TEST_CASE("a signal pending for the process goes to a thread that does not block it") {
    handle(SIGUSR1, counting);
    same([] {
        count = 0;
        const sigset_t usr1 = set_of({SIGUSR1}), none = set_of({});
        sigset_t before;
        pthread_sigmask(SIG_BLOCK, &usr1, &before);
        static std::atomic<bool> unblocked;
        unblocked = false;
        std::thread other([&] {
            pthread_sigmask(SIG_SETMASK, &none, nullptr);
            unblocked = true;
            eventually([] { return count == 1; });
        });
        eventually([] { return unblocked.load(); });
        kill(getpid(), SIGUSR1);
        other.join();
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return count.load();
    });
}

TEST_CASE("a handler that comes and goes while other threads raise its signal") {
    // SIGWINCH, whose default action is to do nothing.
    for (const auto replacement : {SIG_IGN, SIG_DFL}) {
        same([replacement] {
            count = 0;
            handle(SIGWINCH, counting);
            std::atomic<bool> end{false};
            std::vector<std::thread> raising;
            for (int i = 0; i < 2; i++) {
                raising.emplace_back([&end] {
                    while (!end) pthread_kill(pthread_self(), SIGWINCH);
                });
            }
            for (int i = 0; i < 150 || count < 10; i++) {
                handle(SIGWINCH, counting);
                std::this_thread::yield();
                handle(SIGWINCH, replacement);
            }
            end = true;
            for (std::thread& t : raising) t.join();
            handle(SIGWINCH, SIG_DFL);
            return true;
        });
    }
}

TEST_CASE("SA_RESETHAND gives a signal to one handler however many threads raise it") {
    same([] {
        for (int round = 0; round < 50; round++) {
            count = 0;
            handle(SIGWINCH, counting, SA_RESETHAND);
            on_threads(3, [](unsigned) { pthread_kill(pthread_self(), SIGWINCH); });
            if (count != 1) return count.load();
        }
        return 1;
    });
}
