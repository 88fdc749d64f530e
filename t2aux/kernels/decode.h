// A decoder that may be fed its own tokens: stacked layers and a head, one step after the other.

#ifndef T2AUX_KERNELS_DECODE_H_
#define T2AUX_KERNELS_DECODE_H_

#include <cmath>
#include <vector>

#include "forward.h"

namespace t2aux {

// A two-layer feed-forward head, packed: rectified([x] hidden + bias) output + bias. The kernels
// are operands.
struct PackedHead {
  int inputs, hidden, outputs;  // sizes
  int hidden_panels, output_panels;
  int depth, output_depth;  // words
  Buffer hidden_kernel;     // [panels][depth][WIDE]
  Buffer hidden_bias;       // [panels * WIDE]
  Buffer output_kernel;     // [panels][output_depth][WIDE]
  Buffer output_bias;
};

inline int wide_panels(int columns) { return (columns + WIDE - 1) / WIDE; }

// [rows, columns] to [panels][depth][WIDE], with zeros; depth words hold at least `rows` terms.
template <class Operand>
Buffer pack_columns(const float* from, int rows, int columns, int depth) {
  const int panels = wide_panels(columns);
  Buffer to = Buffer::zeros(static_cast<int64_t>(panels) * depth * WIDE);
  for (int q = 0; q < panels; ++q) {
    const int count = std::min(WIDE, columns - q * WIDE);
    float* panel = to.get() + static_cast<int64_t>(q) * depth * WIDE;
    for (int k = 0; k < rows; ++k) {
      const float* row = from + static_cast<int64_t>(k) * columns + q * WIDE;
      for (int i = 0; i < count; i += VEC) {
        Operand::put_term(panel, WIDE, k, i, load_some(row + i, count - i));
      }
    }
  }
  return to;
}

template <class Operand>
PackedHead pack_head(const float* hidden_kernel, const float* hidden_bias,
                     const float* output_kernel, const float* output_bias, int inputs, int hidden,
                     int outputs) {
  PackedHead head;
  head.inputs = inputs;
  head.hidden = hidden;
  head.outputs = outputs;
  head.hidden_panels = wide_panels(hidden);
  head.output_panels = wide_panels(outputs);
  head.depth = words<Operand>(inputs);
  head.output_depth = words<Operand>(head.hidden_panels * WIDE);
  head.hidden_kernel = pack_columns<Operand>(hidden_kernel, inputs, hidden, head.depth);
  head.hidden_bias = pack_columns<Float32>(hidden_bias, 1, hidden, 1);
  head.output_kernel = pack_columns<Operand>(output_kernel, hidden, outputs, head.output_depth);
  head.output_bias = pack_columns<Float32>(output_bias, 1, outputs, 1);
  return head;
}

// to [rows][panels * WIDE], as operands of another product or as floats, = x [rows, `x_row` apart]
// times kernel [panels][depth][WIDE] + bias.
template <class Operand, class To>
void dense(const float* x, int64_t x_row, int rows, int depth, const float* kernel,
           const float* bias, int panels, bool rectify, float* to) {
  for (int q = 0; q < panels; ++q) {
    in_blocks(rows, [&](auto n, int r) T2AUX_NOINLINE {
      constexpr int R = n;
      Vec sum[R][4];
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sum[i][j] = load(bias + q * WIDE + j * VEC);
      }
      multiply<Operand, R>(sum, x + r * x_row, x_row, 1,
                           kernel + static_cast<int64_t>(q) * depth * WIDE, depth);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          Vec v = sum[i][j];
          if (rectify) v = v < 0.0f ? Vec{} : v;
          To::put_terms(to + static_cast<int64_t>(r + i) * panels * (WIDE / To::kPerWord),
                        q * WIDE + j * VEC, v);
        }
      }
    });
  }
}

// A decoder that is fed the given tokens or its own: stacked layers and a head.
struct Decoder {
  int steps;
  int batch;
  int channels;                           // C; 0 where tokens are ids
  const float* given_x = nullptr;         // [T, B, C]
  const int32_t* given_ids = nullptr;     // [T, B]
  const float* previous_x = nullptr;      // [B, C]: the sampled token before step 0
  const int32_t* previous_ids = nullptr;  // [B]
  const unsigned char* use_sampled;       // [T, B]: whether step t reads the sampled token
  const float* uniforms = nullptr;        // [T, B] in [0, 1): from which ids are sampled
  std::vector<const Cells*> layers;
  std::vector<const float*> h0, c0;  // [B, H] each
  const PackedHead* head;
};

struct DecoderResult {
  float* fed_x = nullptr;       // [T, B, C]: what was read
  int32_t* fed_ids = nullptr;   // [T, B]
  float* last_x = nullptr;      // [B, C]: the sampled token after the last step
  int32_t* last_ids = nullptr;  // [B]
  std::vector<float*> outputs;  // [T, B, H], a layer
  std::vector<float*> h, c;     // [B, H], a layer: after the last step
  std::vector<float*> saved;    // a layer, as ForwardResult's
};

// The id whose share of the softmax `draw` falls into.
inline int32_t sample(const float* logits, int count, float draw) {
  float max_logit = logits[0];
  for (int v = 1; v < count; ++v) max_logit = std::max(max_logit, logits[v]);
  float total = 0;
  for (int v = 0; v < count; ++v) total += std::exp(logits[v] - max_logit);
  float left = draw * total;
  for (int v = 0; v + 1 < count; ++v) {
    left -= std::exp(logits[v] - max_logit);
    if (left < 0) return v;
  }
  return count - 1;
}

template <class Operand>
void decode_tile(const Decoder& d, const DecoderResult& out, Range tile) {
  const int rows = tile.end - tile.begin, C = d.channels;
  std::vector<TileState<Operand>> states;
  for (size_t k = 0; k < d.layers.size(); ++k) {
    int64_t at = static_cast<int64_t>(tile.begin) * d.layers[k]->hidden;
    states.emplace_back(*d.layers[k], rows, d.h0[k] + at, d.c0[k] + at);
  }
  const PackedHead& head = *d.head;
  Buffer given_terms(Operand::kPerWord > 1 ? rows * row_words<Operand>(C) : 0);
  const int64_t hidden_row = head.output_depth;
  Buffer hidden(rows * hidden_row);
  const int64_t logits_row = static_cast<int64_t>(head.output_panels) * WIDE;
  Buffer logits(rows * logits_row);
  std::vector<float> sampled_x(static_cast<size_t>(rows) * C);
  std::vector<int32_t> sampled_ids(C ? 0 : rows);
  if (C) {
    std::copy_n(d.previous_x + static_cast<int64_t>(tile.begin) * C, sampled_x.size(),
                sampled_x.begin());
  } else {
    std::copy_n(d.previous_ids + tile.begin, rows, sampled_ids.begin());
  }
  for (int t = 0; t < d.steps; ++t) {
    const int64_t at = static_cast<int64_t>(t) * d.batch + tile.begin;
    for (int r = 0; r < rows; ++r) {
      if (C) {
        std::copy_n(d.use_sampled[at + r] ? sampled_x.data() + static_cast<int64_t>(r) * C
                                          : d.given_x + (at + r) * C,
                    C, out.fed_x + (at + r) * C);
      } else {
        out.fed_ids[at + r] = d.use_sampled[at + r] ? sampled_ids[r] : d.given_ids[at + r];
      }
    }
    for (size_t k = 0; k < d.layers.size(); ++k) {
      const Cells& cells = *d.layers[k];
      Step s;
      s.rows = rows;
      s.ids = k || C ? nullptr : out.fed_ids + at;
      if (k) {
        const TileState<Operand>& below = states[k - 1];
        const int padded = d.layers[k - 1]->padded;
        const bool few = cells.inputs <= kFewInputs;
        s.x = few ? below.h[(t + 1) % 2].get() : below.h_terms((t + 1) % 2);
        s.x_row = few ? padded : padded / Operand::kPerWord;
      } else if (C) {
        read_input<Operand>(cells, out.fed_x + at * C, given_terms, s);
      }
      s.h = states[k].h[t % 2].get();
      s.h_terms = states[k].h_terms(t % 2);
      s.h_new = states[k].h[(t + 1) % 2].get();
      s.h_new_terms = states[k].h_terms((t + 1) % 2);
      s.c = states[k].c.get();
      s.active = nullptr;
      s.saved_panel = static_cast<int64_t>(d.batch) * SAVED;
      s.saved =
          out.saved[k] + (static_cast<int64_t>(t) * cells.panels * d.batch + tile.begin) * SAVED;
      s.streaming = is_large(saved_size(d.steps, d.batch, cells.hidden));
      Range panels{0, cells.panels};
      forward_step<Operand>(cells, s, panels);
      copy_h(cells, s.h_new, rows, panels, out.outputs[k] + at * cells.hidden);
      if (t + 1 == d.steps) {
        int64_t to = static_cast<int64_t>(tile.begin) * cells.hidden;
        copy_h(cells, s.h_new, rows, panels, out.h[k] + to);
        copy_c(cells, s.c, rows, panels, out.c[k] + to);
      }
    }
    // The sampled token is made where it is read.
    if (t + 1 < d.steps && !std::memchr(d.use_sampled + at + d.batch, 1, rows)) continue;
    const Cells& top = *d.layers.back();
    dense<Operand, Operand>(states.back().h_terms((t + 1) % 2), top.padded / Operand::kPerWord,
                            rows, head.depth, head.hidden_kernel.get(), head.hidden_bias.get(),
                            head.hidden_panels, true, hidden.get());
    dense<Operand, Float32>(hidden.get(), hidden_row, rows, head.output_depth,
                            head.output_kernel.get(), head.output_bias.get(), head.output_panels,
                            false, logits.get());
    for (int r = 0; r < rows; ++r) {
      const float* row = logits.get() + r * logits_row;
      if (C) {
        std::copy_n(row, C, sampled_x.begin() + static_cast<int64_t>(r) * C);
      } else {
        sampled_ids[r] = sample(row, head.outputs, d.uniforms[at + r]);
      }
    }
  }
  finish_streaming();
  if (C) {
    std::copy(sampled_x.begin(), sampled_x.end(),
              out.last_x + static_cast<int64_t>(tile.begin) * C);
  } else {
    std::copy(sampled_ids.begin(), sampled_ids.end(), out.last_ids + tile.begin);
  }
}

template <class Operand>
void decode(const Decoder& d, const DecoderResult& out, const Pool& pool) {
  // By sequences alone: a decoder's batch is all anchors' segments.
  const int tiles = make_plan(d.batch, 1, pool.threads).tiles;
  pool.run_apart(tiles, [&](int i) { decode_tile<Operand>(d, out, part(d.batch, i, tiles)); });
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_DECODE_H_
