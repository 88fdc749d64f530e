// The forward pass over a batch: storing nothing, or what the backward pass needs.

#ifndef T2AUX_KERNELS_FORWARD_H_
#define T2AUX_KERNELS_FORWARD_H_

#include <numeric>
#include <vector>

#include "core.h"

namespace t2aux {

// A tile of sequences at one step.
struct Step {
  int rows;
  const float* x = nullptr;  // [rows], `x_row` words apart: D values each, as operands; or ids
  int64_t x_row = 0;
  const int32_t* ids;    // [rows]
  const float* h;        // [rows][P * VEC], before the step
  const float* h_terms;  // the same as operands; h itself in float32
  float* h_new;          // after it
  float* h_new_terms;
  float* c;            // [P][rows][VEC], updated
  const char* active;  // [rows], or null: all
  float* saved;        // panel p's begin at saved + p * saved_panel, rows SAVED apart; or null
  int64_t saved_panel;
  bool streaming;
};

template <class Operand, int R>
T2AUX_INLINE void forward_block(const Cells& cells, const Step& s, int p, int r, bool any) {
  const int depth = cells.h_words + cells.x_words;
  const float* kernel = cells.kernel.get() + static_cast<int64_t>(p) * depth * WIDE;
  Vec z[R][4];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    const float* from = cells.bias.get() + static_cast<int64_t>(p) * WIDE;
    if (s.ids) {
      from = cells.table.get() + (static_cast<int64_t>(s.ids[r + i]) * cells.panels + p) * WIDE;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) z[i][j] = load(from + j * VEC);
  }
  if (any) {
    const int64_t row = cells.padded / Operand::kPerWord;
    multiply<Operand, R>(z, s.h_terms + r * row, row, 1, kernel, cells.h_words);
    if (!s.ids) {
      const float* x = s.x + r * s.x_row;
      kernel += static_cast<int64_t>(cells.h_words) * WIDE;
      if (cells.inputs <= kFewInputs) {
        multiply<Float32, R>(z, x, s.x_row, 1, kernel, cells.x_words);
      } else {
        multiply<Operand, R>(z, x, s.x_row, 1, kernel, cells.x_words);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    float* c_at = s.c + (static_cast<int64_t>(p) * s.rows + r + i) * VEC;
    int64_t unit = static_cast<int64_t>(r + i) * cells.padded + p * VEC;
    Vec c = load(c_at);
    Vec in = {}, forget = all(1.0f), candidate = {}, out = {}, h;
    if (!s.active || s.active[r + i]) {
      // Two quotients share a division.
      Vec a = sigmoid_denominator(z[i][0]);
      Quotient g = tanh_quotient(z[i][2]);
      Vec q = 1.0f / (a * g.under);
      in = q * g.under;
      candidate = g.over * (q * a);
      Vec b = sigmoid_denominator(z[i][1]), d = sigmoid_denominator(z[i][3]);
      q = 1.0f / (b * d);
      forget = q * d;
      out = q * b;
      c = forget * c + in * candidate;
      h = out * tanh_of(c);
      store(c_at, c);
    } else {
      h = load(s.h + unit);
    }
    store(s.h_new + unit, h);
    if constexpr (Operand::kPerWord > 1) {
      float* row = s.h_new_terms + (r + i) * (cells.padded / Operand::kPerWord);
      Operand::put_terms(row, p * VEC, h);
      // A padded cell that shares the last word: NaN after infinite input, which has to stay out.
      if (cells.hidden % 2 && p + 1 == cells.panels) Operand::clear_term(row, cells.hidden);
    }
    if (s.saved) {
      float* to = s.saved + p * s.saved_panel + static_cast<int64_t>(r + i) * SAVED;
      const Vec values[5] = {in, forget, candidate, out, c};
      for (int j = 0; j < 5; ++j) {
        if (s.streaming) {
          store_streaming(to + j * VEC, values[j]);
        } else {
          store(to + j * VEC, values[j]);
        }
      }
    }
  }
}

// One step of the tile for panels.begin <= p < panels.end.
template <class Operand>
void forward_step(const Cells& cells, const Step& s, Range panels) {
  bool any = !s.active || std::memchr(s.active, 1, s.rows) != nullptr;
  for (int p = panels.begin; p < panels.end; ++p) {
    in_blocks(s.rows, [&](auto n, int r)
                          T2AUX_NOINLINE { forward_block<Operand, n>(cells, s, p, r, any); });
  }
}

// States wanted at positions 0 ... T, sorted.
struct Positions {
  std::vector<int> position;
  std::vector<int> index;  // into the caller's order

  Positions(const int32_t* positions, int count) : position(count), index(count) {
    std::iota(index.begin(), index.end(), 0);
    std::stable_sort(index.begin(), index.end(),
                     [&](int a, int b) { return positions[a] < positions[b]; });
    for (int i = 0; i < count; ++i) position[i] = positions[index[i]];
  }
  Range at(int p) const {
    auto both = std::equal_range(position.begin(), position.end(), p);
    return {static_cast<int>(both.first - position.begin()),
            static_cast<int>(both.second - position.begin())};
  }
};

// A layer over a batch.
struct Problem {
  int steps;                     // T
  int batch;                     // B
  const float* x = nullptr;      // [T, B, D]
  const int32_t* ids = nullptr;  // [T, B]
  const float* h0;               // [B, H]
  const float* c0;               // [B, H]
  const int32_t* first =
      nullptr;  // [B]: sequence b has the steps first[b] <= t < last[b], and keeps
  const int32_t* last = nullptr;  // [B]  its state elsewhere; null: everywhere
  const Positions* positions;

  bool active(int t, int b) const { return (!first || t >= first[b]) && (!last || t < last[b]); }
  bool masked() const { return first || last; }
};

struct ForwardResult {
  float* h_at;               // [M, B, H]
  float* c_at;               // [M, B, H]
  float* outputs = nullptr;  // [T, B, H]
  float* saved = nullptr;    // [T][P][B][SAVED]
};

inline int64_t saved_size(int64_t steps, int64_t batch, int hidden) {
  return steps * batch * panels_of(hidden) * SAVED;
}

// Saved activations beyond the caches' size are written past them.
inline bool is_large(int64_t floats) { return floats > (int64_t{1} << 21); }

// Words of a row of so many values, with zeros up to whole vectors.
template <class Operand>
constexpr int64_t row_words(int values) {
  return static_cast<int64_t>((values + VEC - 1) / VEC) * VEC / Operand::kPerWord;
}

// [rows, values] as operands, `row_words` apart.
template <class Operand>
void put_rows(const float* from, int rows, int values, float* to) {
  for (int r = 0; r < rows; ++r, from += values, to += row_words<Operand>(values)) {
    for (int k = 0; k < values; k += VEC) {
      Operand::put_terms(to, k, load_some(from + k, values - k));
    }
  }
}

// The state of a tile, between steps.
template <class Operand>
struct TileState {
  Buffer h[2];      // [rows][P * VEC]
  Buffer c;         // [P][rows][VEC]
  Buffer terms[2];  // h as operands, where they are others

  TileState(const Cells& cells, int rows, const float* h0, const float* c0) {
    int H = cells.hidden;
    h[0] = Buffer::zeros(static_cast<int64_t>(rows) * cells.padded);
    h[1] = Buffer::zeros(static_cast<int64_t>(rows) * cells.padded);
    c = Buffer::zeros(static_cast<int64_t>(rows) * cells.padded);
    for (int r = 0; r < rows; ++r) {
      if (h0) {
        std::memcpy(h[0].get() + static_cast<int64_t>(r) * cells.padded,
                    h0 + static_cast<int64_t>(r) * H, sizeof(float) * H);
      }
      for (int p = 0; c0 && p < cells.panels; ++p) {
        store(c.get() + (static_cast<int64_t>(p) * rows + r) * VEC,
              load_some(c0 + static_cast<int64_t>(r) * H + p * VEC, H - p * VEC));
      }
    }
    if constexpr (Operand::kPerWord > 1) {
      for (Buffer& one : terms) one = Buffer(rows * row_words<Operand>(cells.padded));
      put_rows<Operand>(h[0].get(), rows, cells.padded, terms[0].get());
    }
  }

  float* h_terms(int i) const { return (Operand::kPerWord > 1 ? terms : h)[i].get(); }
};

// What a thread needs for a step beside the tile's own.
struct Scratch {
  std::vector<char> active;
  Buffer x;  // [rows][row_words(D)]

  template <class Operand>
  static Scratch make(const Cells& cells, int rows) {
    return {std::vector<char>(rows),
            Buffer(Operand::kPerWord > 1 ? rows * row_words<Operand>(cells.inputs) : 0)};
  }
};

// Sets s.x to the step's input [rows, D].
template <class Operand>
void read_input(const Cells& cells, const float* x, Buffer& scratch, Step& s) {
  s.x = x;
  s.x_row = cells.inputs;
  if (Operand::kPerWord > 1 && cells.inputs > kFewInputs) {
    put_rows<Operand>(x, s.rows, cells.inputs, scratch.get());
    s.x = scratch.get();
    s.x_row = row_words<Operand>(cells.inputs);
  }
}

// Copies the columns of `panels` of h [rows][P * VEC] to [rows, H].
inline void copy_h(const Cells& cells, const float* h, int rows, Range panels, float* to) {
  int begin = panels.begin * VEC, end = std::min(panels.end * VEC, cells.hidden);
  for (int r = 0; r < rows; ++r) {
    std::memcpy(to + static_cast<int64_t>(r) * cells.hidden + begin,
                h + static_cast<int64_t>(r) * cells.padded + begin, sizeof(float) * (end - begin));
  }
}

inline void copy_c(const Cells& cells, const float* c, int rows, Range panels, float* to) {
  for (int p = panels.begin; p < panels.end; ++p) {
    for (int r = 0; r < rows; ++r) {
      store_some(to + static_cast<int64_t>(r) * cells.hidden + p * VEC,
                 load(c + (static_cast<int64_t>(p) * rows + r) * VEC), cells.hidden - p * VEC);
    }
  }
}

template <class Operand>
class ForwardTile {
 public:
  ForwardTile(const Cells& cells, const Problem& q, const ForwardResult& out, Range rows)
      : cells_(cells),
        q_(q),
        out_(out),
        begin_(rows.begin),
        rows_(rows.end - rows.begin),
        state_(cells, rows_, q.h0 + static_cast<int64_t>(begin_) * cells.hidden,
               q.c0 + static_cast<int64_t>(begin_) * cells.hidden),
        streaming_(is_large(saved_size(q.steps, q.batch, cells.hidden))) {}

  // Step t, for some panels; `scratch` is the caller's thread's.
  void step(int t, Range panels, Scratch& scratch) {
    const int H = cells_.hidden;
    const int64_t at = static_cast<int64_t>(t) * q_.batch + begin_;
    if (t == 0) keep(0, panels);
    Step s;
    s.rows = rows_;
    s.ids = q_.ids ? q_.ids + at : nullptr;
    if (q_.x) read_input<Operand>(cells_, q_.x + at * cells_.inputs, scratch.x, s);
    s.h = state_.h[t % 2].get();
    s.h_terms = state_.h_terms(t % 2);
    s.h_new = state_.h[(t + 1) % 2].get();
    s.h_new_terms = state_.h_terms((t + 1) % 2);
    s.c = state_.c.get();
    s.active = nullptr;
    if (q_.masked()) {
      for (int r = 0; r < rows_; ++r) scratch.active[r] = q_.active(t, begin_ + r);
      s.active = scratch.active.data();
    }
    s.saved_panel = static_cast<int64_t>(q_.batch) * SAVED;
    s.saved = out_.saved ? out_.saved +
                               (static_cast<int64_t>(t) * cells_.panels * q_.batch + begin_) * SAVED
                         : nullptr;
    s.streaming = streaming_;
    forward_step<Operand>(cells_, s, panels);
    if (out_.outputs) copy_h(cells_, s.h_new, rows_, panels, out_.outputs + at * H);
    keep(t + 1, panels);
  }

  // The states at position p to where they are wanted.
  void keep(int p, Range panels) {
    Range positions = q_.positions->at(p);
    for (int m = positions.begin; m < positions.end; ++m) {
      int64_t at =
          (static_cast<int64_t>(q_.positions->index[m]) * q_.batch + begin_) * cells_.hidden;
      copy_h(cells_, state_.h[p % 2].get(), rows_, panels, out_.h_at + at);
      copy_c(cells_, state_.c.get(), rows_, panels, out_.c_at + at);
    }
  }

 private:
  const Cells& cells_;
  const Problem& q_;
  const ForwardResult& out_;
  int begin_;
  int rows_;
  TileState<Operand> state_;
  bool streaming_;
};

template <class Operand>
void forward(const Cells& cells, const Problem& q, const ForwardResult& out, const Pool& pool) {
  Plan plan = make_plan(q.batch, cells.panels, pool.threads);
  Range every{0, cells.panels};
  if (q.steps == 0) {
    ForwardTile<Operand>(cells, q, out, {0, q.batch}).keep(0, every);
    return;
  }
  if (plan.slots > 1) {
    ForwardTile<Operand> tile(cells, q, out, {0, q.batch});
    // Made here: in the phases nothing may throw, for the others would wait.
    std::vector<Scratch> scratch;
    for (int i = 0; i < plan.slots; ++i) {
      scratch.push_back(Scratch::make<Operand>(cells, q.batch));
    }
    in_phases(pool, plan.slots, q.steps, [&](int slot, int64_t t) {
      tile.step(static_cast<int>(t), part(cells.panels, slot, plan.slots), scratch[slot]);
      if (t + 1 == q.steps) finish_streaming();
    });
    return;
  }
  pool.run_apart(plan.tiles, [&](int i) {
    Range rows = part(q.batch, i, plan.tiles);
    ForwardTile<Operand> tile(cells, q, out, rows);
    Scratch scratch = Scratch::make<Operand>(cells, rows.end - rows.begin);
    for (int t = 0; t < q.steps; ++t) tile.step(t, every, scratch);
    finish_streaming();
  });
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_FORWARD_H_
