// Runs the kernel's computations without TensorFlow, for the sanitizers: forward, backward and
// decoding, all kinds of input, several numbers of threads, products in float32 and in bfloat16.
// Prints "ok" where the results do not depend on how the work is divided, beyond rounding, are the
// same bits every time, and those of bfloat16 are near those of float32; "ok, with AMX" where its
// emulation computed products. It tries every other combination of sizes and kinds, such that all
// pairs are there; with the argument "whole", all.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "backward.h"
#include "decode.h"

using namespace t2aux;

namespace {

Pool make_pool(int threads) {
  Pool pool;
  pool.threads = threads;
  pool.run = [threads](int count, const std::function<void(int)>& work) {
    std::atomic<int> next{0};
    auto body = [&] {
      for (int i; (i = next++) < count;) work(i);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < std::min(threads, count); ++i) others.emplace_back(body);
    body();
    for (auto& other : others) other.join();
  };
  return pool;
}

std::mt19937 generator(0);

std::vector<float> normal(size_t count, float scale) {
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> values(count);
  for (float& v : values) v = distribution(generator);
  return values;
}

std::vector<int32_t> integers(size_t count, int end) {
  std::uniform_int_distribution<int32_t> distribution(0, end - 1);
  std::vector<int32_t> values(count);
  for (int32_t& v : values) v = distribution(generator);
  return values;
}

using Results = std::vector<std::vector<float>>;

// A state that is rounded the other way is off by 2^-8, and so is all that comes of it.
template <class Operand>
constexpr float kRounding = Operand::kPerWord == 1 ? 2e-5f : 0.05f;

// Values may be off by so much of the largest.
void compare(const Results& a, const Results& b, float tolerance, const char* what) {
  for (size_t i = 0; i < a.size(); ++i) {
    float largest = 1e-3f, off = 0;
    for (float v : a[i]) largest = std::max(largest, std::fabs(v));
    for (size_t j = 0; j < a[i].size(); ++j) off = std::max(off, std::fabs(a[i][j] - b[i][j]));
    if (!(off <= tolerance * largest)) {
      std::printf("%s: result %zu is off by %g of %g\n", what, i, off, largest);
      std::exit(1);
    }
  }
}

struct Layer {
  int T, B, H, D, V;
  std::vector<float> x, kernel, bias, recurrent, h0, c0, d_h, d_c, d_out;
  std::vector<int32_t> ids, first, last, positions;

  Layer(int T, int B, int H, int D, bool tokens, bool masked)
      : T(T), B(B), H(H), D(tokens ? 0 : D), V(tokens ? 7 : 0) {
    x = normal(static_cast<size_t>(T) * B * D, 1);
    kernel = normal(static_cast<size_t>(tokens ? V : D) * 4 * H, 0.5);
    bias = normal(4 * H, 1);
    recurrent = normal(static_cast<size_t>(H) * 4 * H, 1 / std::sqrt(static_cast<float>(H)));
    h0 = normal(static_cast<size_t>(B) * H, 0.5);
    c0 = normal(static_cast<size_t>(B) * H, 1);
    positions = {T, 0, T / 2, T};
    d_h = normal(positions.size() * B * H, 1);
    d_c = normal(positions.size() * B * H, 1);
    d_out = normal(static_cast<size_t>(T) * B * H, 1);
    if (tokens) ids = integers(static_cast<size_t>(T) * B, V);
    if (masked) {
      first = integers(B, T + 1);
      last = integers(B, T + 1);
    }
  }

  template <class Operand>
  Results run(int threads) const {
    Pool pool = make_pool(threads);
    Positions sorted(positions.data(), positions.size());
    Problem q;
    q.steps = T;
    q.batch = B;
    (V ? void(q.ids = ids.data()) : void(q.x = x.data()));
    q.h0 = h0.data();
    q.c0 = c0.data();
    q.first = first.empty() ? nullptr : first.data();
    q.last = last.empty() ? nullptr : last.data();
    q.positions = &sorted;
    Cells cells =
        pack<Operand>(kernel.data(), D, V, V ? nullptr : bias.data(), recurrent.data(), H, pool);
    Results r(10);
    r[0].resize(d_h.size());
    r[1].resize(d_c.size());
    r[2].resize(d_out.size());
    Buffer saved(saved_size(T, B, H));
    forward<Operand>(cells, q, {r[0].data(), r[1].data(), r[2].data(), saved.get()}, pool);
    r[3].resize(x.size());
    r[4].resize(kernel.size());
    r[5].resize(bias.size());
    r[6].resize(recurrent.size());
    r[7].resize(h0.size());
    r[8].resize(c0.size());
    GradientTensors g;
    g.outputs = d_out.data();
    g.h_at = d_h.data();
    g.c_at = d_c.data();
    g.saved = saved.get();
    g.x = V ? nullptr : r[3].data();
    g.h0 = r[7].data();
    g.c0 = r[8].data();
    Transposed back = transpose<Operand>(kernel.data(), D, recurrent.data(), H, pool);
    backward<Operand>(cells, back, V, q, g, {r[4].data(), r[5].data(), r[6].data()}, pool);
    return r;
  }
};

template <class Operand>
Results run_decoder(bool tokens, int threads) {
  generator.seed(1);
  const int T = 9, B = 7, H = 20, C = tokens ? 0 : 3, V = 11, F = 70;
  const int size = tokens ? V : C;
  Pool pool = make_pool(threads);
  auto kernel0 = normal(static_cast<size_t>(size) * 4 * H, 0.5), bias = normal(4 * H, 1);
  auto kernel1 = normal(static_cast<size_t>(H) * 4 * H, 0.3);
  auto recurrent = normal(static_cast<size_t>(H) * 4 * H, 0.3), state = normal(B * H, 0.5);
  auto w1 = normal(H * F, 0.3), b1 = normal(F, 0.3), w2 = normal(F * size, 0.3),
       b2 = normal(size, 0.3);
  auto given = normal(static_cast<size_t>(T) * B * size, 1), uniforms = normal(T * B, 0.3);
  for (float& d : uniforms) d = std::fabs(d) - std::floor(std::fabs(d));
  auto ids = integers(T * B, V), half = integers(T * B, 2);
  std::vector<unsigned char> use_sampled(half.begin(), half.end());
  Cells bottom = pack<Operand>(kernel0.data(), C, tokens ? V : 0, tokens ? nullptr : bias.data(),
                               recurrent.data(), H, pool);
  Cells top = pack<Operand>(kernel1.data(), H, 0, bias.data(), recurrent.data(), H, pool);
  PackedHead head = pack_head<Operand>(w1.data(), b1.data(), w2.data(), b2.data(), H, F, size);
  Decoder d;
  d.steps = T;
  d.batch = B;
  d.channels = C;
  d.use_sampled = use_sampled.data();
  d.layers = {&bottom, &top};
  d.h0 = d.c0 = {state.data(), state.data()};
  d.head = &head;
  Results r(8);
  for (int i = 0; i < 2; ++i) r[i].resize(T * B * H);
  for (int i = 2; i < 6; ++i) r[i].resize(B * H);
  std::vector<int32_t> fed_ids(T * B), last_ids(B);
  r[6].resize(static_cast<size_t>(T) * B * size);
  r[7].resize(static_cast<size_t>(B) * size);
  Buffer saved0(saved_size(T, B, H)), saved1(saved_size(T, B, H));
  DecoderResult out;
  out.outputs = {r[0].data(), r[1].data()};
  out.h = {r[2].data(), r[3].data()};
  out.c = {r[4].data(), r[5].data()};
  out.saved = {saved0.get(), saved1.get()};
  if (tokens) {
    d.given_ids = ids.data();
    d.previous_ids = ids.data();
    d.uniforms = uniforms.data();
    out.fed_ids = fed_ids.data();
    out.last_ids = last_ids.data();
  } else {
    d.given_x = d.previous_x = given.data();
    out.fed_x = r[6].data();
    out.last_x = r[7].data();
  }
  decode<Operand>(d, out, pool);
  return r;
}

// The results on one thread.
template <class Operand>
Results check(const Layer& layer) {
  Results one = layer.run<Operand>(1);
  for (int threads : {2, 3, 5}) {
    Results more = layer.run<Operand>(threads);
    compare(one, more, kRounding<Operand>, "divided otherwise");
    compare(more, layer.run<Operand>(threads), 0, "again");
  }
  return one;
}

template <class Operand>
void check_decoder(bool tokens) {
  Results more = run_decoder<Operand>(tokens, 3);
  compare(run_decoder<Operand>(tokens, 1), more, kRounding<Operand>, "decoder");
  compare(more, run_decoder<Operand>(tokens, 3), 0, "decoder again");
}

}  // namespace

int main(int count, char** arguments) {
  const bool whole = count > 1 && std::strcmp(arguments[1], "whole") == 0;
  const int batches[] = {1, 2, 3, 70, 131}, sizes[] = {1, 17, 40, 64};
  for (int b = 0; b < 5; ++b) {
    for (int h = 0; h < 4; ++h) {
      for (int kind = 0; kind < 4; ++kind) {
        if (!whole && (b + h + kind) % 2) continue;
        const int B = batches[b], H = sizes[h];
        Layer layer(9, B, H, kind % 2 ? 3 : 70, kind >= 2, kind % 2);
        compare(check<Float32>(layer), check<Bfloat16>(layer), kRounding<Bfloat16>, "bfloat16");
      }
    }
  }
  for (bool tokens : {false, true}) {
    check_decoder<Float32>(tokens);
    check_decoder<Bfloat16>(tokens);
  }
#if defined(T2AUX_EMULATE_AMX)
  if (amx::Emulated::products() > 0) {
    std::puts("ok, with AMX");
    return 0;
  }
#endif
  std::puts("ok");
}
