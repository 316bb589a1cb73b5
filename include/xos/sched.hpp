// A scheduler of the application's own: fibers on a few threads, by a policy of its choice.
//
// A fiber costs a microsecond's fraction to make and some nanoseconds to switch, without a system
// call, inside a cell as well as outside:
//
//     xos::sched::scheduler s({.workers = 4});
//     s.run([] {                                         // the first fiber
//         sched::channel<int> numbers(16);
//         sched::fiber producer({.name = "producer"}, [&](std::stop_token stop) {
//             for (int i = 0; !stop.stop_requested() && numbers.send(i); i++);
//         });
//         while (auto n = numbers.receive()) if (*n == 1000) break;
//         numbers.close();
//     });                                                // returns when all fibers have ended
//
// A fiber runs until it waits or yields. By default it stays on the worker, a thread, that ran it
// first. So thread-local variables and the fibers of one worker need no protection from each other
// between two waits. Locks, condition variables, semaphores, latches, barriers and channels are for
// fibers and plain threads alike; a plain thread sleeps where a fiber switches.
//
// This is a library of its own: link `xos::sched`. `docs/scheduler.md` says more.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <xos/sched/channel.hpp>
#include <xos/sched/condition_variable.hpp>
#include <xos/sched/fiber.hpp>
#include <xos/sched/fiber_local.hpp>
#include <xos/sched/mutex.hpp>
#include <xos/sched/policy.hpp>
#include <xos/sched/scheduler.hpp>
#include <xos/sched/semaphore.hpp>
#include <xos/sched/wait.hpp>

#endif  // C++20
