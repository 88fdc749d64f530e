// Vectors of floats as wide as the processor's registers, and the exponential, logistic and tanh
// functions of them.

#ifndef T2AUX_KERNELS_VECTORS_H_
#define T2AUX_KERNELS_VECTORS_H_

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace t2aux {

#if defined(__AVX512F__)
constexpr int VEC = 16;
constexpr int BLOCK = 6;  // sequences a block of registers: 24 sums, 4 weights, 1 input
#elif defined(__AVX__)
constexpr int VEC = 8;
constexpr int BLOCK = 3;
#elif defined(__aarch64__)
constexpr int VEC = 4;
constexpr int BLOCK = 6;
#else
constexpr int VEC = 4;
constexpr int BLOCK = 3;
#endif
constexpr int WIDE = 4 * VEC;
// What the backward pass needs of a cell: input, forget, candidate, output gate, and the cell.
constexpr int SAVED = 5 * VEC;

typedef float Vec __attribute__((vector_size(4 * VEC)));
typedef int32_t VecInt __attribute__((vector_size(4 * VEC)));

#define T2AUX_INLINE inline __attribute__((always_inline))
// For the loops that need all registers.
#define T2AUX_NOINLINE __attribute__((noinline))

T2AUX_INLINE Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

T2AUX_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

T2AUX_INLINE Vec load_some(const float* p, int count) {
  if (count >= VEC) return load(p);
  Vec v = {};
  std::memcpy(&v, p, sizeof(float) * count);
  return v;
}

T2AUX_INLINE void store_some(float* p, Vec v, int count) {
  if (count >= VEC) return store(p, v);
  std::memcpy(p, &v, sizeof(float) * count);
}

// Past the caches: saved activations are read again only after all of them were written.
T2AUX_INLINE void store_streaming(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX__)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}

inline void finish_streaming() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

T2AUX_INLINE Vec all(float x) { return Vec{} + x; }

// NaN passes through: a comparison with it is false.
T2AUX_INLINE Vec clamp(Vec x, float limit) {
  x = x > limit ? all(limit) : x;
  return x < -limit ? all(-limit) : x;
}

struct Exponential {
  Vec scale;     // 2^n
  Vec fraction;  // e^r - 1, with x = n ln 2 + r
};

// For |x| < 87: n is the nearest integer to x / ln 2, and (e^r - 1 - r) / r^2 a polynomial, fitted
// over |r| < ln 2 / 2 so that the largest relative error of e^r - 1 is least (1.4e-8).
T2AUX_INLINE Exponential exponential(Vec x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
  Vec shifted = x * 1.44269504f + shift;
  Vec n = shifted - shift;
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = 0.00836657733f + r * 0.00139464391f;
  p = 0.0416662805f + r * p;
  p = 0.166665435f + r * p;
  p = 0.5f + r * p;
  VecInt bits = ((VecInt)shifted << 23) + 0x3f800000;
  return {(Vec)bits, r + r * r * p};
}

// The denominator of the logistic function, 1 + e^-x. Beyond 43 nothing changes in float32, and the
// product of two of them does not overflow.
T2AUX_INLINE Vec sigmoid_denominator(Vec x) {
  Exponential e = exponential(-clamp(x, 43.0f));
  return (1.0f + e.scale) + e.scale * e.fraction;
}

struct Quotient {
  Vec over;
  Vec under;
};

// tanh x = (e^2x - 1) / (e^2x + 1), exact to the last places near 0 too.
T2AUX_INLINE Quotient tanh_quotient(Vec x) {
  Exponential e = exponential(2.0f * clamp(x, 10.0f));
  Vec over = (e.scale - 1.0f) + e.scale * e.fraction;
  return {over, over + 2.0f};
}

T2AUX_INLINE Vec tanh_of(Vec x) {
  Quotient q = tanh_quotient(x);
  return q.over / q.under;
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_VECTORS_H_
