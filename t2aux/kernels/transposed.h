// The weights as the backward pass wants them.

#ifndef T2AUX_KERNELS_TRANSPOSED_H_
#define T2AUX_KERNELS_TRANSPOSED_H_

#include "core.h"

namespace t2aux {

// The transposed weights: columns h then x, in panels of WIDE columns each; the order of the rows
// is that of the gates' gradients, panel by panel. All are operands.
struct Transposed {
  int h_panels = 0;
  int x_panels = 0;
  int depth = 0;  // words of P * WIDE terms
  Buffer kernel;  // [h_panels + x_panels][depth][WIDE]
  // [D][depth]: the columns of x again where they are few. A panel of them would be mostly zeros,
  // and as slow as a full one.
  Buffer few;
};

template <class Operand>
Transposed transpose(const float* input, int inputs, const float* recurrent, int hidden,
                     const Pool& pool) {
  Transposed t;
  int P = panels_of(hidden);
  t.h_panels = (hidden + WIDE - 1) / WIDE;
  t.x_panels = (inputs + WIDE - 1) / WIDE;
  t.depth = words<Operand>(P * WIDE);
  t.kernel = Buffer::zeros(static_cast<int64_t>(t.h_panels + t.x_panels) * t.depth * WIDE);
  if (inputs <= kFewInputs) t.few = Buffer::zeros(static_cast<int64_t>(inputs) * t.depth);
  pool.run(t.h_panels + t.x_panels, [&](int q) {
    const bool is_h = q < t.h_panels;
    const float* from = is_h ? recurrent : input;
    const int begin = (is_h ? q : q - t.h_panels) * WIDE;
    const int count = std::min(WIDE, (is_h ? hidden : inputs) - begin);
    float* to = t.kernel.get() + static_cast<int64_t>(q) * t.depth * WIDE;
    for (int k = 0; k < count; ++k) {
      const float* row = from + static_cast<int64_t>(begin + k) * 4 * hidden;
      for (int p = 0; p < P; ++p) {
        for (int g = 0; g < 4; ++g) {
          for (int u = 0; u < std::min(VEC, hidden - p * VEC); ++u) {
            const int64_t at = (static_cast<int64_t>(p) * 4 + g) * VEC + u;
            const float weight = row[g * hidden + p * VEC + u];
            Operand::put_value(to, WIDE, at, k, weight);
            if (!is_h && t.few.get()) {
              Operand::put_value(t.few.get() + static_cast<int64_t>(k) * t.depth, 1, at, 0, weight);
            }
          }
        }
      }
    }
  });
  return t;
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_TRANSPOSED_H_
