// The operands of the products, in float32 or rounded to bfloat16; the sums are float32 either way.
//
// Operands are kept in words of 32 bits: one float, or two bfloat16 values that are neighbours in
// the sum, the first in the lower half. Where the number of terms is odd, the last word's upper
// half is zero. So a product is the same loop over words for both, and half as long for bfloat16.
//
// Values are rounded to the nearest, ties to even. The processor's instructions for bfloat16 take
// numbers below 2^-126 as zero.

#ifndef T2AUX_KERNELS_OPERANDS_H_
#define T2AUX_KERNELS_OPERANDS_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace t2aux {

typedef uint32_t VecBits __attribute__((vector_size(4 * VEC)));
typedef uint16_t VecHalves __attribute__((vector_size(2 * VEC)));

T2AUX_INLINE uint32_t load_word(const float* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

T2AUX_INLINE Vec broadcast(const float* p) { return (Vec)(VecBits{} + load_word(p)); }

struct Float32 {
  static constexpr int kPerWord = 1;

  // sum + a * b, for each word.
  static T2AUX_INLINE Vec add_product(Vec sum, Vec a, Vec b) { return sum + a * b; }

  // The terms k ... k + VEC - 1 of a row; k is a multiple of VEC.
  static T2AUX_INLINE void put_terms(float* row, int64_t k, Vec v) { store(row + k, v); }

  // Term k of the columns column ... column + VEC - 1, of `columns` in all. The first of two terms
  // in a word must be put before the second: it sets the second to zero.
  static T2AUX_INLINE void put_term(float* to, int64_t columns, int64_t k, int64_t column, Vec v) {
    store(to + k * columns + column, v);
  }

  // Term k of one column.
  static void put_value(float* to, int64_t columns, int64_t k, int64_t column, float v) {
    to[k * columns + column] = v;
  }
};

inline uint16_t rounded_to_bfloat16(float v) {
  uint32_t bits = load_word(&v);
  // A NaN stays one: quiet, and not rounded up to infinity.
  if (std::isnan(v)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Computed with the processor's instructions where it has them, otherwise with plain integers and
// float32 products, which serves tests: it is slower than Float32.
struct Bfloat16 {
  static constexpr int kPerWord = 2;

#if defined(__AVX512BF16__)
  static constexpr bool kNative = true;

  static T2AUX_INLINE Vec add_product(Vec sum, Vec a, Vec b) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }

  static T2AUX_INLINE void put_terms(float* row, int64_t k, Vec v) {
    __m256bh halves = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(row + k / 2, &halves, sizeof(halves));
  }

  // Each value in the lower half of a word.
  static T2AUX_INLINE VecBits rounded(Vec v) {
    return __builtin_convertvector((VecHalves)_mm512_cvtneps_pbh((__m512)v), VecBits);
  }
#else
  static constexpr bool kNative = false;

  static T2AUX_INLINE Vec add_product(Vec sum, Vec a, Vec b) {
    const VecBits x = (VecBits)a, y = (VecBits)b;
    sum += (Vec)(x << 16) * (Vec)(y << 16);
    return sum + (Vec)(x & 0xffff0000) * (Vec)(y & 0xffff0000);
  }

  static T2AUX_INLINE void put_terms(float* row, int64_t k, Vec v) {
    const VecHalves halves = __builtin_convertvector(rounded(v), VecHalves);
    std::memcpy(row + k / 2, &halves, sizeof(halves));
  }

  static T2AUX_INLINE VecBits rounded(Vec v) {
    const VecBits bits = (VecBits)v;
    const VecBits quiet = bits >> 16 | 0x40;
    return v != v ? quiet : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
#endif

  static T2AUX_INLINE void put_term(float* to, int64_t columns, int64_t k, int64_t column, Vec v) {
    float* at = to + k / 2 * columns + column;
    VecBits bits = rounded(v);
    if (k % 2) bits = bits << 16 | (VecBits)load(at);
    store(at, (Vec)bits);
  }

  // Sets term k of a row to zero; k is odd.
  static T2AUX_INLINE void clear_term(float* row, int64_t k) {
    const uint32_t bits = load_word(row + k / 2) & 0xffff;
    std::memcpy(row + k / 2, &bits, sizeof(bits));
  }

  static void put_value(float* to, int64_t columns, int64_t k, int64_t column, float v) {
    float* at = to + k / 2 * columns + column;
    uint32_t bits = rounded_to_bfloat16(v);
    if (k % 2) bits = bits << 16 | load_word(at);
    std::memcpy(at, &bits, sizeof(bits));
  }
};

// Words for so many terms.
template <class Operand>
constexpr int words(int terms) {
  return (terms + Operand::kPerWord - 1) / Operand::kPerWord;
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_OPERANDS_H_
