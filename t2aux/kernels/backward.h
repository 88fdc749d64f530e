// The backward pass over a batch: gradients of states, inputs and weights.

#ifndef T2AUX_KERNELS_BACKWARD_H_
#define T2AUX_KERNELS_BACKWARD_H_

#include "forward.h"
#include "transposed.h"

namespace t2aux {

// One thread's sums of the weights' gradients, in panels.
struct Sums {
  Buffer kernel;  // [P][H + D][WIDE]
  Buffer bias;    // [P][WIDE]
  Buffer table;   // [V][P][WIDE]

  Sums(const Cells& shape, int vocabulary)
      : kernel(Buffer::zeros(static_cast<int64_t>(shape.panels) * (shape.hidden + shape.inputs) *
                             WIDE)),
        bias(Buffer::zeros(static_cast<int64_t>(shape.panels) * WIDE)),
        table(Buffer::zeros(static_cast<int64_t>(vocabulary) * shape.panels * WIDE)) {}
};

// The gradients that come in, and where those with respect to the batch go.
struct GradientTensors {
  const float* outputs = nullptr;  // [T, B, H], or null: none
  const float* h_at;               // [M, B, H]
  const float* c_at;               // [M, B, H]
  const float* saved;              // as ForwardResult's
  float* x = nullptr;              // [T, B, D], or null: not wanted
  float* h0;                       // [B, H]
  float* c0;                       // [B, H]
};

template <class Operand>
class BackwardTile {
 public:
  // `shape` holds the sizes; its weights are not used.
  BackwardTile(const Cells& shape, const Transposed& weights, const Problem& q,
               const GradientTensors& g, Range rows)
      : cells_(shape),
        weights_(weights),
        q_(q),
        g_(g),
        begin_(rows.begin),
        rows_(rows.end - rows.begin),
        slots_(std::max(1, kDepth / rows_)),
        x_columns_(kWords ? shape.inputs : static_cast<int>(row_words<Float32>(shape.inputs))),
        columns_(weights.h_panels + (g.x ? weights.x_panels : 0)),
        h_row_(static_cast<int64_t>(weights.h_panels) * WIDE),
        initial_(shape, rows_, q.h0 + static_cast<int64_t>(begin_) * shape.hidden,
                 q.c0 + static_cast<int64_t>(begin_) * shape.hidden),
        dh_(Buffer::zeros(rows_ * h_row_)),
        kept_(Buffer(q.masked() ? rows_ * h_row_ : 0)),
        dc_(Buffer::zeros(static_cast<int64_t>(rows_) * shape.padded)),
        tanh_c_(Buffer(static_cast<int64_t>(rows_) * shape.padded)),
        depth_(words<Operand>(slots_ * rows_)),
        dz_(Buffer(static_cast<int64_t>(shape.panels) * depth_ * WIDE)),
        dz_rows_(Buffer(kWords ? 0 : static_cast<int64_t>(shape.panels) * rows_ * kRow)),
        h_(Buffer(static_cast<int64_t>(depth_) * shape.padded)),
        x_(Buffer(static_cast<int64_t>(depth_) * x_columns_)) {}

  // First half of step t: the gates' gradients of some panels.
  void gates(int t, Range panels, Sums& sums) {
    const int slot = slot_of(t);
    if (q_.x && panels.begin == 0) keep_x(t, slot);
    Range positions = q_.positions->at(t + 1);
    for (int p = panels.begin; p < panels.end; ++p) {
      Vec bias[4] = {};
      for (int r = 0; r < rows_; ++r) cell(t, slot, p, r, positions, bias, sums);
      float* to = sums.bias.get() + static_cast<int64_t>(p) * WIDE;
      for (int j = 0; j < 4; ++j) store(to + j * VEC, load(to + j * VEC) + bias[j]);
    }
  }

  // Second half: the gradients with respect to the step's inputs, columns `columns`, and, where
  // enough steps have come together or none is left, the weights' of `panels`.
  void products(int t, Range columns, Range panels, Sums& sums) {
    for (int q = columns.begin; q < columns.end; ++q) back(t, q);
    const int slot = slot_of(t);
    if (slot + 1 == slots_ || t == 0) {
      for (int p = panels.begin; p < panels.end; ++p) accumulate(p, (slot + 1) * rows_, sums);
    }
  }

  // After step 0.
  void finish() {
    const int H = cells_.hidden;
    Range positions = q_.positions->at(0);
    for (int r = 0; r < rows_; ++r) {
      for (int p = 0; p < cells_.panels; ++p) {
        const int count = H - p * VEC;
        Vec dh = load(dh_.get() + r * h_row_ + p * VEC);
        Vec dc = load(dc_.get() + (static_cast<int64_t>(p) * rows_ + r) * VEC);
        add_state_gradients(positions, r, p, count, dh, dc);
        int64_t at = static_cast<int64_t>(begin_ + r) * H + p * VEC;
        store_some(g_.h0 + at, dh, count);
        store_some(g_.c0 + at, dc, count);
      }
    }
  }

 private:
  // Sequences times steps that the weights' gradients are summed over at a time: the sums are read
  // and written once for so many.
  static constexpr int kDepth = 128;

  // Whether a word is one value: then what is summed over sequences and what is summed over gates
  // lie alike.
  static constexpr bool kWords = Operand::kPerWord == 1;
  // Words of a panel's gradients of one sequence's gates.
  static constexpr int kRow = WIDE / Operand::kPerWord;

  int slot_of(int t) const { return (q_.steps - 1 - t) % slots_; }

  // Panel p's gates' gradients with the slots' sequences as terms.
  float* dz(int p) const { return dz_.get() + static_cast<int64_t>(p) * depth_ * WIDE; }

  // One sequence's, in a row.
  float* dz_row(int p, int slot, int r) const {
    if (kWords) return dz(p) + (static_cast<int64_t>(slot) * rows_ + r) * WIDE;
    return dz_rows_.get() + (static_cast<int64_t>(p) * rows_ + r) * kRow;
  }

  void keep_x(int t, int slot) {
    const int D = cells_.inputs;
    const float* from = q_.x + (static_cast<int64_t>(t) * q_.batch + begin_) * D;
    if (kWords) {
      std::memcpy(x_.get() + static_cast<int64_t>(slot) * rows_ * D, from,
                  sizeof(float) * rows_ * D);
      return;
    }
    for (int r = 0; r < rows_; ++r, from += D) {
      for (int k = 0; k < D; k += VEC) {
        Operand::put_term(x_.get(), x_columns_, slot * rows_ + r, k, load_some(from + k, D - k));
      }
    }
  }

  T2AUX_INLINE void add_state_gradients(Range positions, int r, int p, int count, Vec& dh,
                                        Vec& dc) const {
    for (int m = positions.begin; m < positions.end; ++m) {
      int64_t at =
          (static_cast<int64_t>(q_.positions->index[m]) * q_.batch + begin_ + r) * cells_.hidden +
          p * VEC;
      dh += load_some(g_.h_at + at, count);
      dc += load_some(g_.c_at + at, count);
    }
  }

  T2AUX_INLINE void cell(int t, int slot, int p, int r, Range positions, Vec (&bias)[4],
                         Sums& sums) {
    const int count = cells_.hidden - p * VEC;
    const int b = begin_ + r;
    const int64_t step = static_cast<int64_t>(cells_.panels) * q_.batch * SAVED;
    const float* saved = g_.saved + t * step + (static_cast<int64_t>(p) * q_.batch + b) * SAVED;
    const int64_t at = (static_cast<int64_t>(p) * rows_ + r) * VEC;
    const Vec in = load(saved), forget = load(saved + VEC), candidate = load(saved + 2 * VEC),
              out = load(saved + 3 * VEC);
    Vec tanh_c = t + 1 == q_.steps ? tanh_of(load(saved + 4 * VEC)) : load(tanh_c_.get() + at);
    Vec c_before, h_before;
    if (t > 0) {
      c_before = load(saved - step + 4 * VEC);
      Vec before = tanh_of(c_before);
      store(tanh_c_.get() + at, before);
      h_before = load(saved - step + 3 * VEC) * before;
      // Before its first step a sequence keeps its initial state; after its last no gradient asks.
      if (q_.first && t <= q_.first[b]) h_before = load(h0_at(r, p));
    } else {
      c_before = load(initial_.c.get() + at);
      h_before = load(h0_at(r, p));
    }
    Operand::put_term(h_.get(), cells_.padded, slot * rows_ + r, p * VEC, h_before);

    Vec dh = load(dh_.get() + r * h_row_ + p * VEC);
    Vec dc = load(dc_.get() + at);
    if (g_.outputs) {
      dh += load_some(
          g_.outputs + (static_cast<int64_t>(t) * q_.batch + b) * cells_.hidden + p * VEC, count);
    }
    add_state_gradients(positions, r, p, count, dh, dc);
    if (q_.masked()) {
      // The gates were saved as "keep"; only the output has to be carried on by hand.
      bool active = q_.active(t, b);
      store(kept_.get() + r * h_row_ + p * VEC, dh);
      if (!active) dh = Vec{};
    }
    dc += dh * out * (1.0f - tanh_c * tanh_c);
    const Vec d[4] = {dc * candidate * in * (1.0f - in), dc * c_before * forget * (1.0f - forget),
                      dc * in * (1.0f - candidate * candidate), dh * tanh_c * out * (1.0f - out)};
    store(dc_.get() + at, dc * forget);
    float *terms = dz(p), *row = dz_row(p, slot, r);
    const int64_t term = slot * rows_ + r;
    for (int j = 0; j < 4; ++j) {
      Operand::put_term(terms, WIDE, term, j * VEC, d[j]);
      if (!kWords) Operand::put_terms(row, j * VEC, d[j]);
      bias[j] += d[j];
    }
    if (q_.ids) {
      int64_t id = q_.ids[static_cast<int64_t>(t) * q_.batch + b];
      float* row = sums.table.get() + (id * cells_.panels + p) * WIDE;
      for (int j = 0; j < 4; ++j) store(row + j * VEC, load(row + j * VEC) + d[j]);
    }
  }

  // Asks for what the next step's `cell` will read, a few sequences at a time: so it comes from
  // memory while the products run.
  T2AUX_INLINE void prefetch(int t, int p, int r, int rows) const {
    if (t < 2) return;
    const int64_t step = static_cast<int64_t>(cells_.panels) * q_.batch * SAVED;
    const float* gates =
        g_.saved + (t - 1) * step + (static_cast<int64_t>(p) * q_.batch + begin_ + r) * SAVED;
    for (int i = 0; i < rows; ++i, gates += SAVED) {
      for (int j = 0; j < 3; ++j) __builtin_prefetch(gates + j * VEC, 0, 2);
      for (int j = 3; j < 5; ++j) __builtin_prefetch(gates - step + j * VEC, 0, 2);
    }
  }

  float* h0_at(int r, int p) const {
    return initial_.h[0].get() + static_cast<int64_t>(r) * cells_.padded + p * VEC;
  }

  // The gradient with respect to columns q of [h, x].
  void back(int t, int q) {
    const int slot = slot_of(t);
    const bool is_h = q < weights_.h_panels;
    if (!is_h && weights_.few.get()) return back_to_few(t);
    // A part of the rows at a time, so that its weights stay in the first cache.
    constexpr int kPanels = 2;
    for (int p = 0; p < cells_.panels; p += kPanels) {
      const int end = std::min(p + kPanels, cells_.panels);
      in_blocks(rows_, [&](auto n, int r) T2AUX_NOINLINE {
        constexpr int R = n;
        Vec sum[R][4] = {};
        float* to[R];
        int64_t row;
        if (is_h) {
          to[0] = dh_.get() + r * h_row_ + static_cast<int64_t>(q) * WIDE;
          row = h_row_;
        } else {
          to[0] = dx_.get() + static_cast<int64_t>(r) * weights_.x_panels * WIDE +
                  static_cast<int64_t>(q - weights_.h_panels) * WIDE;
          row = static_cast<int64_t>(weights_.x_panels) * WIDE;
        }
        for (int i = 1; i < R; ++i) to[i] = to[0] + i * row;
        if (p > 0) {
          for (int i = 0; i < R; ++i) {
            for (int j = 0; j < 4; ++j) sum[i][j] = load(to[i] + j * VEC);
          }
        }
        for (int k = p; k < end; ++k) {
          if (k % columns_ == q) prefetch(t, k, r, R);
          multiply<Operand, R>(
              sum, dz_row(k, slot, r), kRow, 1,
              weights_.kernel.get() + (static_cast<int64_t>(q) * weights_.depth + k * kRow) * WIDE,
              kRow);
        }
        for (int i = 0; i < R; ++i) {
          for (int j = 0; j < 4; ++j) store(to[i] + j * VEC, sum[i][j]);
        }
      });
    }
    if (is_h && q_.masked()) {
      for (int r = 0; r < rows_; ++r) {
        if (q_.active(t, begin_ + r)) continue;
        int64_t at = r * h_row_ + static_cast<int64_t>(q) * WIDE;
        int cells = std::min(WIDE, cells_.padded - q * WIDE);
        std::memcpy(dh_.get() + at, kept_.get() + at, sizeof(float) * cells);
      }
    }
    if (!is_h) {
      const int begin = (q - weights_.h_panels) * WIDE;
      const int columns = std::min(WIDE, cells_.inputs - begin);
      for (int r = 0; r < rows_; ++r) {
        std::memcpy(
            g_.x + (static_cast<int64_t>(t) * q_.batch + begin_ + r) * cells_.inputs + begin,
            dx_.get() + static_cast<int64_t>(r) * weights_.x_panels * WIDE + begin,
            sizeof(float) * columns);
      }
    }
  }

  // The gradient with respect to x of few values a step: a dot product each.
  void back_to_few(int t) {
    const int slot = slot_of(t);
    float* to = g_.x + (static_cast<int64_t>(t) * q_.batch + begin_) * cells_.inputs;
    for (int r = 0; r < rows_; ++r) {
      for (int k = 0; k < cells_.inputs; ++k) {
        const float* weights = weights_.few.get() + static_cast<int64_t>(k) * weights_.depth;
        Vec sum[4] = {};
        for (int p = 0; p < cells_.panels; ++p, weights += kRow) {
          const float* d = dz_row(p, slot, r);
          for (int j = 0; j < kRow / VEC; ++j) {
            sum[j] = Operand::add_product(sum[j], load(d + j * VEC), load(weights + j * VEC));
          }
        }
        const Vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        float value = 0;
        for (int i = 0; i < VEC; ++i) value += all[i];
        *to++ = value;
      }
    }
  }

  // Adds [h, x]^T dz over the first `depth` rows of the slots.
  void accumulate(int p, int depth, Sums& sums) {
    const int H = cells_.hidden, D = cells_.inputs;
    float* to = sums.kernel.get() + static_cast<int64_t>(p) * (H + D) * WIDE;
    const float* d = dz(p);
    auto add = [&](const float* a, int64_t row, int count, float* at) {
      in_blocks(count, [&](auto n, int m) T2AUX_NOINLINE {
        constexpr int R = n;
        Vec sum[R][4];
        float* block = at + static_cast<int64_t>(m) * WIDE;
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sum[i][j] = load(block + i * WIDE + j * VEC);
        }
        multiply<Operand, R>(sum, a + m, 1, row, d, words<Operand>(depth));
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) store(block + i * WIDE + j * VEC, sum[i][j]);
        }
      });
    };
    add(h_.get(), cells_.padded, H, to);
    if (D) add(x_.get(), x_columns_, D, to + static_cast<int64_t>(H) * WIDE);
  }

  const Cells& cells_;
  const Transposed& weights_;
  const Problem& q_;
  const GradientTensors& g_;
  int begin_;
  int rows_;
  int slots_;  // steps whose gates' gradients are kept for `accumulate`
  int x_columns_;
  int columns_;  // panels of columns that `back` fills
  int64_t h_row_;
  TileState<Float32> initial_;
  Buffer dh_;       // [rows][h_panels * WIDE]
  Buffer kept_;     // the same, of sequences outside of their steps
  Buffer dc_;       // [P][rows][VEC]
  Buffer tanh_c_;   // [P][rows][VEC]: of the step that comes next
  int depth_;       // words of slots * rows terms
  Buffer dz_;       // [P][depth][WIDE]
  Buffer dz_rows_;  // [P][rows][kRow], where they do not lie as dz_'s
  Buffer h_;        // [depth][P * VEC], before each step
  Buffer x_;        // [depth][x_columns]
  Buffer dx_ = Buffer(static_cast<int64_t>(rows_) * weights_.x_panels * WIDE);
};

struct WeightGradients {
  float* input;      // [D, 4H] or [V, 4H]
  float* bias;       // [4H]
  float* recurrent;  // [H, 4H]
};

// Adds the threads' sums in order.
inline void add_sums(const Cells& shape, int vocabulary,
                     const std::vector<std::unique_ptr<Sums>>& sums, const WeightGradients& to,
                     const Pool& pool) {
  const int H = shape.hidden, D = shape.inputs, P = shape.panels;
  auto total = [&](auto get, float* into) {
    for (int j = 0; j < 4; ++j) {
      Vec v = load(get(*sums[0]) + j * VEC);
      for (size_t i = 1; i < sums.size(); ++i) v += load(get(*sums[i]) + j * VEC);
      store(into + j * VEC, v);
    }
  };
  pool.run(P, [&](int p) {
    float row[WIDE];
    for (int k = 0; k < H + D; ++k) {
      int64_t at = (static_cast<int64_t>(p) * (H + D) + k) * WIDE;
      total([&](const Sums& s) { return s.kernel.get() + at; }, row);
      float* into = k < H ? to.recurrent + static_cast<int64_t>(k) * 4 * H
                          : to.input + static_cast<int64_t>(k - H) * 4 * H;
      unpack_row(row, H, p, into);
    }
    total([&](const Sums& s) { return s.bias.get() + static_cast<int64_t>(p) * WIDE; }, row);
    unpack_row(row, H, p, to.bias);
    for (int v = 0; v < vocabulary; ++v) {
      int64_t at = (static_cast<int64_t>(v) * P + p) * WIDE;
      total([&](const Sums& s) { return s.table.get() + at; }, row);
      unpack_row(row, H, p, to.input + static_cast<int64_t>(v) * 4 * H);
    }
  });
}

template <class Operand>
void backward(const Cells& shape, const Transposed& weights, int vocabulary, const Problem& q,
              const GradientTensors& g, const WeightGradients& to, const Pool& pool) {
  Plan plan = make_plan(q.batch, shape.panels, pool.threads);
  Range panels{0, shape.panels};
  const int columns = weights.h_panels + (g.x ? weights.x_panels : 0);
  std::vector<std::unique_ptr<Sums>> sums;
  const int threads = plan.slots > 1 ? 1 : std::min(plan.tiles, pool.threads);
  for (int i = 0; i < threads; ++i) sums.push_back(std::make_unique<Sums>(shape, vocabulary));
  if (plan.slots > 1) {
    BackwardTile<Operand> tile(shape, weights, q, g, {0, q.batch});
    in_phases(pool, plan.slots, 2 * static_cast<int64_t>(q.steps), [&](int slot, int64_t phase) {
      int t = q.steps - 1 - static_cast<int>(phase / 2);
      Range own = part(shape.panels, slot, plan.slots);
      if (phase % 2 == 0) {
        tile.gates(t, own, *sums[0]);
      } else {
        tile.products(t, part(columns, slot, plan.slots), own, *sums[0]);
      }
    });
    tile.finish();
  } else {
    // Thread i's tiles are always the same ones, in the same order: so are the sums.
    pool.run_apart(threads, [&](int i) {
      Range own = part(plan.tiles, i, threads);
      for (int k = own.begin; k < own.end; ++k) {
        BackwardTile<Operand> tile(shape, weights, q, g, part(q.batch, k, plan.tiles));
        for (int t = q.steps - 1; t >= 0; --t) {
          tile.gates(t, panels, *sums[i]);
          tile.products(t, {0, columns}, panels, *sums[i]);
        }
        tile.finish();
      }
    });
  }
  add_sums(shape, vocabulary, sums, to, pool);
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_BACKWARD_H_
