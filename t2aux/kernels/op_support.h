// What the ops share: memory for what a gradient needs, TensorFlow's threads, and checks of inputs.

#ifndef T2AUX_KERNELS_OP_SUPPORT_H_
#define T2AUX_KERNELS_OP_SUPPORT_H_

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "forward.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace t2aux {

namespace tf = tensorflow;

// Memory for saved activations and other large results. A training step wants the same few hundred
// MiB again and again, and fetching the former alone from the system page by page, cleared, adds
// 0.7 of the step's own time (B 128, T 784, H 128): what is given back is kept for the next step.
// Where nothing kept is large enough, all that is kept goes back to the system first, so this never
// holds more than was in use at once.
class Memory {
 public:
  static Memory& get() {
    static Memory* memory = new Memory();
    return *memory;
  }

  struct Piece {
    void* data;
    size_t bytes;
  };

  Piece take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      if (it->bytes >= bytes && (best == kept_.end() || it->bytes < best->bytes)) best = it;
    }
    if (best != kept_.end()) {
      Piece piece = *best;
      kept_.erase(best);
      return piece;
    }
    for (const Piece& piece : kept_) munmap(piece.data, piece.bytes);
    kept_.clear();
    constexpr size_t kHuge = size_t{2} << 20;
    bytes = (std::max<size_t>(bytes, 1) + kHuge - 1) / kHuge * kHuge;
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(data, bytes, MADV_HUGEPAGE);
#endif
    return {data, bytes};
  }

  void give_back(Piece piece) {
    std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back(piece);
  }

 private:
  std::mutex mutex_;
  std::vector<Piece> kept_;
};

class KeptBuffer : public tf::TensorBuffer {
 public:
  explicit KeptBuffer(Memory::Piece piece) : TensorBuffer(piece.data), piece_(piece) {}
  ~KeptBuffer() override { Memory::get().give_back(piece_); }
  size_t size() const override { return piece_.bytes; }
  tf::TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tf::AllocationDescription*) const override {}

 private:
  Memory::Piece piece_;
};

// Floats, not initialised.
inline tf::Tensor make_tensor(const tf::TensorShape& shape) {
  const int64_t floats = shape.num_elements();
  // Small ones are not worth the system's call.
  if (!is_large(floats)) return tf::Tensor(tf::DT_FLOAT, shape);
  tf::core::RefCountPtr<tf::TensorBuffer> buffer(
      new KeptBuffer(Memory::get().take(floats * sizeof(float))));
  return tf::Tensor(tf::DT_FLOAT, shape, std::move(buffer));
}

inline Pool pool_of(tf::OpKernelContext* context) {
  auto* workers = context->device()->tensorflow_cpu_worker_threads();
  Pool pool;
  pool.threads = workers->num_threads;
  pool.run = [workers](int count, const std::function<void(int)>& work) {
    using Threads = tf::thread::ThreadPool;
    if (count == 1) return work(0);
    // An exception must not leave a thread of TensorFlow's.
    std::atomic<bool> no_memory{false};
    workers->workers->ParallelFor(
        count, Threads::SchedulingParams(Threads::SchedulingStrategy::kFixedBlockSize, {}, 1),
        [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            try {
              work(static_cast<int>(i));
            } catch (const std::bad_alloc&) {
              no_memory = true;
            }
          }
        });
    if (no_memory) throw std::bad_alloc();
  };
  return pool;
}

template <class... Parts>
absl::Status invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

inline const float* floats(const tf::Tensor& t) {
  return t.NumElements() ? t.flat<float>().data() : nullptr;
}

inline const int32_t* ints(const tf::Tensor& t) {
  return t.NumElements() ? t.flat<int32_t>().data() : nullptr;
}

inline absl::Status get_precision(tf::OpKernelConstruction* c, bool& bfloat16) {
  std::string precision;
  TF_RETURN_IF_ERROR(c->GetAttr("precision", &precision));
  bfloat16 = precision == "bfloat16";
  return absl::OkStatus();
}

// Runs `compute` with the kind of the products' operands; memory that is missing is TensorFlow's
// error of that name.
template <class F>
void guarded(tf::OpKernelContext* context, bool bfloat16, F compute) {
  try {
    if (bfloat16) {
      compute(Bfloat16());
    } else {
      compute(Float32());
    }
  } catch (const std::bad_alloc&) {
    context->CtxFailure(
        absl::ResourceExhaustedError("the LSTM kernel could not get the memory it needs"));
  }
}

inline absl::Status check_ids(const tf::Tensor& ids, int64_t vocabulary) {
  auto flat = ids.flat<int32_t>();
  for (int64_t i = 0; i < flat.size(); ++i) {
    if (flat(i) < 0 || flat(i) >= vocabulary) {
      return invalid("token id ", flat(i), " is not in [0, ", vocabulary, ")");
    }
  }
  return absl::OkStatus();
}

inline absl::Status check_positions(const tf::Tensor& positions, int64_t steps) {
  auto flat = positions.flat<int32_t>();
  for (int64_t i = 0; i < flat.size(); ++i) {
    if (flat(i) < 0 || flat(i) > steps) {
      return invalid("position ", flat(i), " is not in [0, ", steps, "]");
    }
  }
  return absl::OkStatus();
}

}  // namespace t2aux

#endif  // T2AUX_KERNELS_OP_SUPPORT_H_
