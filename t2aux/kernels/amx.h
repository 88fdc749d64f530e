// Products of bfloat16 by Intel's AMX, whose registers ("tiles") hold 16 rows of 16 sums.
//
// Written after Intel's Architecture Instruction Set Extensions reference and tested in emulation
// alone (T2AUX_EMULATE_AMX), on processors without it. So it is used only where T2AUX_KERNEL_AMX is
// "on", the compiler's target has it, and Linux grants its registers to the process.

#ifndef T2AUX_KERNELS_AMX_H_
#define T2AUX_KERNELS_AMX_H_

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "vectors.h"

#if defined(T2AUX_EMULATE_AMX) && defined(__AVX512F__)
#define T2AUX_AMX 1
#include "amx_emulation.h"
#elif defined(__AMX_BF16__) && defined(__AVX512F__) && defined(__linux__)
#define T2AUX_AMX 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace t2aux {
namespace amx {

#if defined(T2AUX_AMX)

struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

inline bool granted() {
#if defined(T2AUX_EMULATE_AMX)
  return true;
#else
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#endif
}

inline bool enabled() {
  static const bool enabled = [] {
    const char* wanted = std::getenv("T2AUX_KERNEL_AMX");
    return wanted && std::strcmp(wanted, "on") == 0 && granted();
  }();
  return enabled;
}

// Tiles are a thread's; other libraries configure them in their own way. While a `Thread` lives,
// tiles 0 to 3 hold the sums of BLOCK rows, 4 holds operands of these rows, and 5 of 16 words.
class Thread {
 public:
  Thread() {
    if (!enabled()) return;
    Configuration configuration;
    for (int tile = 0; tile < 6; ++tile) {
      configuration.row_bytes[tile] = 64;
      configuration.rows[tile] = tile < 5 ? BLOCK : 16;
    }
    _tile_loadconfig(&configuration);
  }
  ~Thread() {
    if (enabled()) _tile_release();
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
};

// Adds the products of as many words as whole tiles take, see `multiply`; returns how many.
T2AUX_NOINLINE inline int multiply(Vec (&sums)[BLOCK][4], const float* a, int64_t row,
                                   const float* b, int depth) {
  constexpr int kWords = 16;
  alignas(64) float kept[4][BLOCK][16];
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < BLOCK; ++i) store(kept[j][i], sums[i][j]);
  }
  // The compiler does not know that tiles read memory.
  __asm__ volatile("" ::: "memory");
  _tile_loadd(0, kept[0], 64);
  _tile_loadd(1, kept[1], 64);
  _tile_loadd(2, kept[2], 64);
  _tile_loadd(3, kept[3], 64);
  int k = 0;
  for (; k + kWords <= depth; k += kWords, b += kWords * WIDE) {
    _tile_loadd(4, a + k, row * sizeof(float));
    _tile_loadd(5, b, WIDE * sizeof(float));
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(5, b + VEC, WIDE * sizeof(float));
    _tile_dpbf16ps(1, 4, 5);
    _tile_loadd(5, b + 2 * VEC, WIDE * sizeof(float));
    _tile_dpbf16ps(2, 4, 5);
    _tile_loadd(5, b + 3 * VEC, WIDE * sizeof(float));
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, kept[0], 64);
  _tile_stored(1, kept[1], 64);
  _tile_stored(2, kept[2], 64);
  _tile_stored(3, kept[3], 64);
  __asm__ volatile("" ::: "memory");
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < BLOCK; ++i) sums[i][j] = load(kept[j][i]);
  }
  return k;
}

#else

inline bool enabled() { return false; }

class Thread {
 public:
  Thread() {}
  ~Thread() {}
};

#endif

}  // namespace amx
}  // namespace t2aux

#endif  // T2AUX_KERNELS_AMX_H_
