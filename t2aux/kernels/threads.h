// Threads for the LSTM's work: pieces that run at once, phases that wait for each other, and how a
// batch is divided among them.

#ifndef T2AUX_KERNELS_THREADS_H_
#define T2AUX_KERNELS_THREADS_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "amx.h"

namespace t2aux {

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Runs work(0) ... work(count - 1), on several threads if it likes, and returns when all are done.
struct Pool {
  int threads = 1;
  std::function<void(int count, const std::function<void(int)>& work)> run;

  // The same for a few long pieces of work: makes sure that every thread has its own core.
  void run_apart(int count, const std::function<void(int)>& work) const;
};

// Threads that were woken for the same work should be on different cores. Linux often wakes one on
// the core of the thread that woke it, and leaves it waiting there for up to 10 ms though another
// core is idle: longer than the whole work may take.
class Apart {
 public:
  explicit Apart(int count) : cores_(count) {
    for (auto& core : cores_) core.store(-1, std::memory_order_relaxed);
  }

  // Called by every thread before its work.
  void arrive() {
#ifdef __linux__
    // Once a thread, however many pieces it works on.
    static thread_local int64_t last = -1;
    if (last == id_) return;
    last = id_;
    const int self = arrived_.fetch_add(1);
    const int count = static_cast<int>(cores_.size());
    if (self >= count) return;
    const int core = sched_getcpu();
    // That thread is at work and not running, so it is waiting for this core.
    for (int i = 0; i < self; ++i) {
      if (cores_[i].load() == core) return move_away();
    }
    cores_[self].store(core);
    if (self > 0) return;
    // Those that wait for this core come to run by yielding; they will move away.
    for (int i = 0; i < 200 && arrived_.load() < count; ++i) {
      for (int j = 0; j < 16; ++j) pause();
      if (i % 16 == 15) sched_yield();
    }
#endif
  }

 private:
#ifdef __linux__
  void move_away() {
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    others = allowed;
    for (auto& core : cores_) {
      if (core.load() >= 0) CPU_CLR(core.load(), &others);
    }
    if (CPU_COUNT(&others) == 0) return;
    if (sched_setaffinity(0, sizeof(others), &others) == 0) {
      sched_setaffinity(0, sizeof(allowed), &allowed);
    }
  }
#endif

  static int64_t next_id() {
    static std::atomic<int64_t> id{0};
    return id.fetch_add(1);
  }

  const int64_t id_ = next_id();
  std::vector<std::atomic<int>> cores_;
  std::atomic<int> arrived_{0};
};

inline void Pool::run_apart(int count, const std::function<void(int)>& work) const {
  if (count == 1) {
    amx::Thread thread;
    return work(0);
  }
  Apart apart(std::min(count, threads));
  run(count, [&](int i) {
    apart.arrive();
    amx::Thread thread;
    work(i);
  });
}

// Runs work(slot, phase) for all slots of a phase before any of the next: for batches too small to
// give every thread its own sequences. A thread takes its own slot, so that its weights stay in
// its cache; a slot whose thread has not come (the pool may be busy) is taken by another. As a
// slot once taken is always being worked on, no thread ever waits for one that has not started. The
// work must not throw.
inline void in_phases(const Pool& pool, int slots, int64_t phases,
                      const std::function<void(int slot, int64_t phase)>& work) {
  if (slots == 1) {
    amx::Thread thread;
    for (int64_t k = 0; k < phases; ++k) work(0, k);
    return;
  }
  struct alignas(64) Claim {
    std::atomic<int64_t> taken{-1};
  };
  std::vector<Claim> claims(slots);
  std::atomic<int64_t> done{0};
  pool.run_apart(slots, [&](int self) {
    std::vector<char> absent(slots, 0);
    for (int64_t k = done.load(std::memory_order_acquire) / slots; k < phases; ++k) {
      for (int j = 0; j < slots; ++j) {
        int slot = (self + j) % slots;
        auto& taken = claims[slot].taken;
        if (j > 0 && !absent[slot]) {
          for (int i = 0; i < 4096 && taken.load(std::memory_order_relaxed) < k; ++i) pause();
        }
        int64_t before = k - 1;
        if (taken.compare_exchange_strong(before, k, std::memory_order_acq_rel)) {
          work(slot, k);
          done.fetch_add(1, std::memory_order_acq_rel);
          absent[slot] = j > 0;
        } else {
          absent[slot] = 0;
        }
      }
      // A thread at work that lost its core to another gets this one.
      for (int i = 0; done.load(std::memory_order_acquire) < (k + 1) * slots; ++i) {
        if (i < 2048) {
          pause();
        } else {
          std::this_thread::yield();
        }
      }
    }
  });
}

struct Range {
  int begin;
  int end;
};

// Part i of n nearly equal parts of 0 ... count - 1.
inline Range part(int count, int i, int n) {
  return {static_cast<int>(static_cast<int64_t>(count) * i / n),
          static_cast<int>(static_cast<int64_t>(count) * (i + 1) / n)};
}

// How a batch is divided: into tiles of sequences, or, in phases, into panels.
struct Plan {
  int tiles;
  int slots;  // 1: by tiles
};

inline Plan make_plan(int batch, int panels, int threads) {
  constexpr int kRows = 64;
  if (batch < threads && panels > 1) return {1, std::min(threads, panels)};
  int tiles = std::min(batch, threads);
  int each = (batch + tiles - 1) / tiles;
  return {tiles * ((each + kRows - 1) / kRows), 1};
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_THREADS_H_
