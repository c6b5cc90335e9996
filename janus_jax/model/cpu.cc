// A token of the language model on a CPU with AVX-512: products of few rows, which read a kernel as
// quickly as memory gives it, and attention to a cache. `model.cpu` compiles this where it runs and
// says what the arrays are.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#if !defined(__AVX512F__)
#error "this compiler does not know the processor's AVX-512"
#endif
#include <immintrin.h>

// Whether the processor multiplies and adds up the numbers of a word: two of bfloat16, four of int8.
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define WORDS 1
#else
#define WORDS 0
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Floats = float __attribute__((vector_size(64)));
using Words = uint32_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));

constexpr int64_t kShare = 1 << 18;  // bytes of a kernel that a thread takes at a time

// Calls f(0) to f(count - 1) in this thread and those of the pool that are free. This one waits for
// calls that were begun, never for a thread that has not come: all of them may be waiting here.
template <typename F>
void Share(ffi::ThreadPool& pool, int64_t count, const F& f) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  const F* call = &f;  // alive as long as an index is left
  auto work = [progress, count, call] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      (*call)(i);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = std::min(pool.num_threads(), count); i > 1; --i) {
    pool.Schedule([work] { work(); });
  }
  work();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

template <typename To, typename From>
To Bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename To>
To Read(const void* from) {
  To to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

template <typename Vector>
auto Total(const Vector& lanes) {
  auto sum = lanes[0];
  for (size_t i = 1; i < sizeof(lanes) / sizeof(sum); ++i) sum += lanes[i];
  return sum;
}

float Widened(uint16_t x) { return Bits<float>(uint32_t{x} << 16); }
float Widened(float x) { return x; }

void Narrowed(float x, float* to) { *to = x; }

void Narrowed(float x, uint16_t* to) {  // to the nearest, the even one of two
  uint32_t bits = Bits<uint32_t>(x);
  *to = std::isnan(x) ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// What is multiplied: 64 bytes of a kernel's row by 64 of x, summed in 16 lanes; and one number by one.

struct Float32 {
  static constexpr auto kGiven = ffi::F32, kFound = ffi::F32;
  using Number = float;
  using Result = float;
  using Sums = Floats;
  static void Add(Sums& sums, const Number* w, const Number* x) {
    sums += Read<Floats>(w) * Read<Floats>(x);
  }
  static Result Single(Number w, Number x) { return w * x; }
  static Result Offset(const Number*, int64_t) { return 0; }
};

struct BFloat16 {
  static constexpr auto kGiven = ffi::BF16, kFound = ffi::F32;
  using Number = uint16_t;
  using Result = float;
  using Sums = Floats;
  static void Add(Sums& sums, const Number* w, const Number* x) {
#if WORDS
    AddWords(sums, Read<__m512i>(w), Read<__m512i>(x));
#else
    const auto a = Read<Words>(w), b = Read<Words>(x);  // the first number is the low half
    sums += Bits<Floats>(a << 16) * Bits<Floats>(b << 16);
    sums += Bits<Floats>(a & 0xffff0000u) * Bits<Floats>(b & 0xffff0000u);
#endif
  }
#if WORDS
  static void AddWords(Sums& sums, __m512i w, __m512i x) {
    sums = (Sums)_mm512_dpbf16_ps((__m512)sums, (__m512bh)w, (__m512bh)x);
  }
#endif
  static Result Single(Number w, Number x) { return Widened(w) * Widened(x); }
  static Result Offset(const Number*, int64_t) { return 0; }
};

#if WORDS
struct Int8 {
  static constexpr auto kGiven = ffi::S8, kFound = ffi::S32;
  using Number = int8_t;
  using Result = int32_t;
  using Sums = Ints;
  static void Add(Sums& sums, const Number* w, const Number* x) {
    AddWords(sums, Read<__m512i>(w), Read<__m512i>(x));
  }
  // The instruction's first operand has no sign: it is w + 128. `Offset` takes 128 times x off again.
  static void AddWords(Sums& sums, __m512i w, __m512i x) {
    const __m512i raised = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    sums = (Sums)_mm512_dpbusd_epi32((__m512i)sums, raised, x);
  }
  static Result Single(Number w, Number x) { return int32_t{w} * x; }
  static Result Offset(const Number* x, int64_t count) {
    int32_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum -= 128 * x[i];
    return sum;
  }
};
#endif

// y [N, out] at R outputs: of w [R, in] and x [N, in].
template <typename Kind, int R, int N>
void Tile(const typename Kind::Number* w, const typename Kind::Number* x,
          const typename Kind::Result* offsets, typename Kind::Result* y, int64_t in, int64_t out) {
  constexpr int64_t kStep = 64 / sizeof(*w);
  const int64_t whole = in / kStep * kStep;
  typename Kind::Sums sums[R][N] = {};
  for (int64_t i = 0; i < whole; i += kStep) {
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(w + (R + r) * in + i, 0, 2);  // of the next outputs
      for (int n = 0; n < N; ++n) Kind::Add(sums[r][n], w + r * in + i, x + n * in + i);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < N; ++n) {
      auto sum = Total(sums[r][n]) + offsets[n];
      for (int64_t i = whole; i < in; ++i) sum += Kind::Single(w[r * in + i], x[n * in + i]);
      y[n * out + r] = sum;
    }
  }
}

template <typename Kind, int R>
void Outputs(const typename Kind::Number* w, const typename Kind::Number* x,
             const typename Kind::Result* offsets, typename Kind::Result* y, int64_t rows,
             int64_t in, int64_t out) {
  int64_t n = 0;
  for (; n + 4 <= rows; n += 4) Tile<Kind, R, 4>(w, x + n * in, offsets + n, y + n * out, in, out);
  for (; n + 2 <= rows; n += 2) Tile<Kind, R, 2>(w, x + n * in, offsets + n, y + n * out, in, out);
  for (; n < rows; ++n) Tile<Kind, R, 1>(w, x + n * in, offsets + n, y + n * out, in, out);
}

#if WORDS

// Products of many rows. Lanes are rows of x, and words of w are broadcast; both are first copied in
// the order in which they are read.

constexpr int64_t kMost = 16;            // rows that are not many
constexpr int kLanes = 16, kPanel = 32;  // rows of x in a register, and at a time
constexpr int kTile = 12, kTiles = 4;    // outputs at a time, and how often before the next panel

void Transpose(__m512i rows[kLanes]) {  // of 16 x 16 words
  __m512i a[kLanes], b[kLanes];
  for (int i = 0; i < kLanes; i += 2) {
    a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < kLanes; i += 4) {
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
      b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    const __m512i low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
    const __m512i more_low = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
    const __m512i more_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_i32x4(low, more_low, 0x88);
    rows[i + 4] = _mm512_shuffle_i32x4(high, more_high, 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(low, more_low, 0xdd);
    rows[i + 12] = _mm512_shuffle_i32x4(high, more_high, 0xdd);
  }
}

// Up to 16 rows of `bytes` each as words [ceil(bytes / 64) * 16, width], of which the first `kept` of
// each 16 are written. What is missing is 0.
void Pack(const void* from, int64_t rows, int64_t bytes, uint32_t* to, int64_t width, int kept) {
  for (int64_t at = 0; at < bytes; at += 64) {
    const __mmask64 mask = bytes - at < 64 ? (__mmask64{1} << (bytes - at)) - 1 : ~__mmask64{0};
    __m512i words[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const char* row = static_cast<const char*>(from) + i * bytes + at;
      words[i] = i < rows ? _mm512_maskz_loadu_epi8(mask, row) : _mm512_setzero_si512();
    }
    Transpose(words);
    for (int i = 0; i < kLanes; ++i) {
      _mm512_mask_storeu_epi32(to + (at / 4 + i) * width, (1 << kept) - 1, words[i]);
    }
  }
}

// y [kPanel, kTile] of packed w and x.
template <typename Kind>
void Block(const uint32_t* w, const uint32_t* x, int64_t words,
           typename Kind::Sums (&sums)[kTile][kPanel / kLanes]) {
  constexpr int kRegisters = kPanel / kLanes;
  typename Kind::Sums own[kTile][kRegisters] = {};
  for (int64_t k = 0; k < words; ++k) {
    for (int r = 0; r < kTile; ++r) {
      const __m512i word = _mm512_set1_epi32(w[k * kTile + r]);
      for (int i = 0; i < kRegisters; ++i) {
        Kind::AddWords(own[r][i], word, Read<__m512i>(x + k * kPanel + i * kLanes));
      }
    }
  }
  std::memcpy(sums, own, sizeof(own));
}

template <typename Kind>
void Many(ffi::ThreadPool& pool, const typename Kind::Number* w, const typename Kind::Number* x,
          typename Kind::Result* y, int64_t rows, int64_t in, int64_t out) {
  const int64_t bytes = in * sizeof(*w), words = (bytes + 63) / 64 * kLanes;
  const int64_t panels = (rows + kPanel - 1) / kPanel;
  static thread_local std::vector<uint32_t> packed;  // kept: new memory is slow
  packed.resize(std::max<size_t>(packed.size(), panels * kPanel * words));
  uint32_t* xs = packed.data();
  std::vector<typename Kind::Result> offsets(rows);
  Share(pool, panels, [&](int64_t panel) {
    for (int64_t n = panel * kPanel; n < (panel + 1) * kPanel; n += kLanes) {
      Pack(x + n * in, rows - n, bytes, xs + panel * kPanel * words + n % kPanel, kPanel, kLanes);
      for (int64_t i = n; i < std::min(rows, n + kLanes); ++i) {
        offsets[i] = Kind::Offset(x + i * in, in);
      }
    }
  });
  Share(pool, (out + kTile * kTiles - 1) / (kTile * kTiles), [&](int64_t part) {
    static thread_local std::vector<uint32_t> own;
    own.resize(std::max<size_t>(own.size(), kTiles * kTile * words));
    const int64_t begin = part * kTile * kTiles, end = std::min(out, begin + kTile * kTiles);
    for (int64_t o = begin; o < end; o += kTile) {
      Pack(w + o * in, std::min<int64_t>(kTile, end - o), bytes, &own[(o - begin) * words], kTile,
           kTile);
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t o = begin; o < end; o += kTile) {
        typename Kind::Sums sums[kTile][kPanel / kLanes];
        Block<Kind>(&own[(o - begin) * words], xs + panel * kPanel * words, words, sums);
        for (int64_t n = panel * kPanel; n < std::min(rows, (panel + 1) * kPanel); ++n) {
          const int64_t i = n % kPanel;
          for (int r = 0; r < std::min<int64_t>(kTile, end - o); ++r) {
            y[n * out + o + r] = sums[r][i / kLanes][i % kLanes] + offsets[n];
          }
        }
      }
    }
  });
}

#endif

template <typename Kind>
ffi::Error Product(ffi::ThreadPool pool, ffi::BufferR2<Kind::kGiven> x,
                   ffi::BufferR2<Kind::kGiven> w, ffi::ResultBufferR2<Kind::kFound> y) {
  using Number = typename Kind::Number;
  constexpr int64_t kTall = 8;  // outputs at once
  const int64_t rows = x.dimensions()[0], in = x.dimensions()[1], out = w.dimensions()[0];
  const auto* xs = static_cast<const Number*>(x.untyped_data());
  const auto* ws = static_cast<const Number*>(w.untyped_data());
  auto* ys = static_cast<typename Kind::Result*>(y->untyped_data());
#if WORDS
  if constexpr (!std::is_same_v<Kind, Float32>) {
    if (rows > kMost) {
      Many<Kind>(pool, ws, xs, ys, rows, in, out);
      return ffi::Error::Success();
    }
  }
#endif
  const int64_t bytes = std::max<int64_t>(1, in * sizeof(Number));
  const int64_t share = kTall * std::max<int64_t>(1, kShare / (kTall * bytes));
  constexpr int64_t kWhole = 64 / sizeof(Number);
  std::vector<typename Kind::Result> offsets(rows);
  for (int64_t n = 0; n < rows; ++n) offsets[n] = Kind::Offset(xs + n * in, in / kWhole * kWhole);
  Share(pool, (out + share - 1) / share, [&](int64_t part) {
    int64_t o = part * share;
    const int64_t end = std::min(out, o + share);
    for (; o + kTall <= end; o += kTall) {
      Outputs<Kind, kTall>(ws + o * in, xs, offsets.data(), ys + o, rows, in, out);
    }
    for (; o < end; ++o) Outputs<Kind, 1>(ws + o * in, xs, offsets.data(), ys + o, rows, in, out);
  });
  return ffi::Error::Success();
}

float Dot(const float* a, const float* b, int64_t size) {
  Floats sums = {};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) sums += Read<Floats>(a + i) * Read<Floats>(b + i);
  float sum = Total(sums);
  for (; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

// The attention of one head of one row; q, k, v and y [K], keys and values [S, K].
template <typename Number>
void Head(const Number* q, const Number* k, const Number* v, const float* cos, const float* sin,
          float* keys, float* values, int64_t at, int64_t size, Number* y) {
  const int64_t half = size / 2;
  std::vector<float> query(size), weights(at + 1), sum(size);
  auto rotated = [&](const Number* from, float* to) {  // rounded, as `layers.rotate` does
    for (int64_t i = 0; i < half; ++i) {
      const float a = Widened(from[i]), b = Widened(from[half + i]);
      Number low, high;
      Narrowed(a * cos[i] - b * sin[i], &low);
      Narrowed(b * cos[i] + a * sin[i], &high);
      to[i] = Widened(low);
      to[half + i] = Widened(high);
    }
  };
  rotated(q, query.data());
  rotated(k, keys + at * size);
  for (int64_t i = 0; i < size; ++i) values[at * size + i] = Widened(v[i]);

  const float scale = 1 / std::sqrt(static_cast<float>(size));
  float top = -INFINITY, total = 0;
  for (int64_t s = 0; s <= at; ++s) {
    weights[s] = Dot(query.data(), keys + s * size, size) * scale;
    top = std::max(top, weights[s]);
  }
  for (int64_t s = 0; s <= at; ++s) total += weights[s] = std::exp(weights[s] - top);
  for (int64_t s = 0; s <= at; ++s) {
    const float weight = weights[s] / total;
    const float* value = values + s * size;
    for (int64_t i = 0; i < size; ++i) sum[i] += weight * value[i];
  }
  for (int64_t i = 0; i < size; ++i) Narrowed(sum[i], y + i);
}

template <typename Number>
void Heads(ffi::ThreadPool& pool, const void* qkv, const float* cos, const float* sin,
           const int32_t* at, float* keys, float* values, void* y, int64_t rows, int64_t heads,
           int64_t places, int64_t size) {
  Share(pool, rows * heads, [&](int64_t part) {
    const int64_t row = part / heads, head = part % heads, width = heads * size;
    const auto* q = static_cast<const Number*>(qkv) + row * 3 * width + head * size;
    const auto place = std::clamp<int64_t>(at[row], 0, places - 1);  // nobody else's is written
    const int64_t cache = part * places * size, angle = row * (size / 2);
    Head(q, q + width, q + 2 * width, cos + angle, sin + angle, keys + cache, values + cache,
         place, size, static_cast<Number*>(y) + part * size);
  });
}

// keys and values are those that come out, too.
ffi::Error Attention(ffi::ThreadPool pool, ffi::AnyBuffer qkv, ffi::Buffer<ffi::F32> cos,
                     ffi::Buffer<ffi::F32> sin, ffi::BufferR1<ffi::S32> at,
                     ffi::BufferR4<ffi::F32> keys, ffi::BufferR4<ffi::F32>,
                     ffi::Result<ffi::AnyBuffer> y, ffi::ResultBufferR4<ffi::F32> new_keys,
                     ffi::ResultBufferR4<ffi::F32> new_values) {
  const auto shape = keys.dimensions();  // rows, heads, places, size
  const auto run = qkv.element_type() == ffi::BF16 ? Heads<uint16_t> : Heads<float>;
  if (qkv.element_type() != ffi::BF16 && qkv.element_type() != ffi::F32) {
    return ffi::Error::InvalidArgument("qkv is neither float32 nor bfloat16");
  }
  run(pool, qkv.untyped_data(), cos.typed_data(), sin.typed_data(), at.typed_data(),
      new_keys->typed_data(), new_values->typed_data(), y->untyped_data(), shape[0], shape[1],
      shape[2], shape[3]);
  return ffi::Error::Success();
}

}  // namespace

#define PRODUCT(name, Kind)                                             \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, Product<Kind>,                    \
                                ffi::Ffi::Bind()                        \
                                    .Ctx<ffi::ThreadPool>()             \
                                    .Arg<ffi::BufferR2<Kind::kGiven>>() \
                                    .Arg<ffi::BufferR2<Kind::kGiven>>() \
                                    .Ret<ffi::BufferR2<Kind::kFound>>())

PRODUCT(product_float32, Float32);
PRODUCT(product_bfloat16, BFloat16);
#if WORDS
PRODUCT(product_int8, Int8);
#endif

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention, Attention,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // qkv
                                  .Arg<ffi::Buffer<ffi::F32>>()  // cos
                                  .Arg<ffi::Buffer<ffi::F32>>()  // sin
                                  .Arg<ffi::BufferR1<ffi::S32>>()  // at
                                  .Arg<ffi::BufferR4<ffi::F32>>()  // keys
                                  .Arg<ffi::BufferR4<ffi::F32>>()  // values
                                  .Ret<ffi::AnyBuffer>()  // y
                                  .Ret<ffi::BufferR4<ffi::F32>>()  // keys
                                  .Ret<ffi::BufferR4<ffi::F32>>());
