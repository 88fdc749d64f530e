// Intel's AMX intrinsics in plain C++, for tests on processors without AMX.

#ifndef T2AUX_KERNELS_AMX_EMULATION_H_
#define T2AUX_KERNELS_AMX_EMULATION_H_

#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace t2aux {
namespace amx {

struct Emulated {
  bool configured = false;
  uint16_t row_bytes[16];
  uint8_t rows[16];
  uint32_t words[8][16][16];

  // As the processor does, stops the program where tiles are used without a configuration.
  void check() const {
    if (!configured) std::abort();
  }

  void configure(const void* from) {
    const char* bytes = static_cast<const char*>(from);
    std::memcpy(row_bytes, bytes + 16, sizeof(row_bytes));
    std::memcpy(rows, bytes + 48, sizeof(rows));
    std::memset(words, 0, sizeof(words));
    configured = true;
  }

  void load(int tile, const void* base, int64_t stride) {
    check();
    for (int r = 0; r < rows[tile]; ++r) {
      std::memcpy(words[tile][r], static_cast<const char*>(base) + r * stride, row_bytes[tile]);
    }
  }

  void store(int tile, void* base, int64_t stride) {
    check();
    for (int r = 0; r < rows[tile]; ++r) {
      std::memcpy(static_cast<char*>(base) + r * stride, words[tile][r], row_bytes[tile]);
    }
  }

  static float number(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }

  static std::atomic<int64_t>& products() {
    static std::atomic<int64_t> count{0};
    return count;
  }

  // Rows of a by columns of b; row k of b holds words of the terms 2k and 2k + 1.
  void multiply(int to, int a, int b) {
    check();
    ++products();
    if (rows[to] != rows[a] || row_bytes[a] != 4 * rows[b]) std::abort();
    for (int r = 0; r < rows[to]; ++r) {
      for (int k = 0; k < rows[b]; ++k) {
        const uint32_t x = words[a][r][k];
        for (int c = 0; c < row_bytes[to] / 4; ++c) {
          const uint32_t y = words[b][k][c];
          float sum = number(words[to][r][c]);
          sum += number(x << 16) * number(y << 16);
          sum += number(x & 0xffff0000) * number(y & 0xffff0000);
          std::memcpy(&words[to][r][c], &sum, sizeof(sum));
        }
      }
    }
  }
};

inline Emulated& emulated() {
  static thread_local Emulated state;
  return state;
}

}  // namespace amx
}  // namespace t2aux

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(from) t2aux::amx::emulated().configure(from)
#define _tile_release() t2aux::amx::emulated().configured = false
#define _tile_loadd(tile, base, stride) t2aux::amx::emulated().load(tile, base, stride)
#define _tile_stored(tile, base, stride) t2aux::amx::emulated().store(tile, base, stride)
#define _tile_dpbf16ps(to, a, b) t2aux::amx::emulated().multiply(to, a, b)

#endif  // T2AUX_KERNELS_AMX_EMULATION_H_
