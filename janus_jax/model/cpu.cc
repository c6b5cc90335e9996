// What decodes on a CPU with AVX-512: products of few rows, which read a kernel as quickly as memory
// gives it, and of many, and attention. `model.cpu` compiles this where it runs and says what the
// arrays are.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
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

void Narrowed(int32_t x, int32_t* to) { *to = x; }

constexpr int kLanes = 16;  // words of a register

int64_t Up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// The first n lanes, or all of them.
__mmask16 First(int64_t n) { return (1 << std::clamp<int64_t>(n, 0, kLanes)) - 1; }

// 16 numbers at once; those beyond the mask are 0, and are not written.
__m512 Wide(const float* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }

__m512 Wide(const uint16_t* from, __mmask16 mask) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
  return (__m512)_mm512_slli_epi32(words, 16);
}

void Put(__m512 x, float* to, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, x); }

void Put(__m512 x, int32_t* to, __mmask16 mask) { _mm512_mask_storeu_ps(to, mask, x); }  // as it is

void Put(__m512 x, uint16_t* to, __mmask16 mask) {  // as `Narrowed`
  const __m512i bits = (__m512i)x, high = _mm512_srli_epi32(bits, 16);
  const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
  __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));
  up = _mm512_srli_epi32(up, 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  up = _mm512_mask_or_epi32(up, nan, high, _mm512_set1_epi32(64));
  _mm256_mask_storeu_epi16(to, mask, _mm512_cvtepi32_epi16(up));
}

template <typename From, typename To>
void Copy(const From* from, int64_t count, To* to) {
  for (int64_t i = 0; i < count; i += kLanes) {
    Put(Wide(from + i, First(count - i)), to + i, First(count - i));
  }
}

// What is multiplied: 64 bytes of a kernel's row by 64 of x, summed in 16 lanes; and one number by one.

struct Float32 {
  static constexpr auto kGiven = ffi::F32;
  using Number = float;
  using Sum = float;
  using Sums = Floats;
  static void Add(Sums& sums, const Number* w, const Number* x) {
    sums += Read<Floats>(w) * Read<Floats>(x);
  }
  static void AddWords(Sums& sums, __m512i w, __m512i x) { sums += (Floats)w * (Floats)x; }
  static Sum Single(Number w, Number x) { return w * x; }
  static Sum Offset(const Number*, int64_t) { return 0; }
};

struct BFloat16 {
  static constexpr auto kGiven = ffi::BF16;
  using Number = uint16_t;
  using Sum = float;
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
  static Sum Single(Number w, Number x) { return Widened(w) * Widened(x); }
  static Sum Offset(const Number*, int64_t) { return 0; }
};

#if WORDS
struct Int8 {
  static constexpr auto kGiven = ffi::S8;
  using Number = int8_t;
  using Sum = int32_t;
  using Sums = Ints;
  static void Add(Sums& sums, const Number* w, const Number* x) {
    AddWords(sums, Read<__m512i>(w), Read<__m512i>(x));
  }
  // The instruction's first operand has no sign: it is w + 128. `Offset` takes 128 times x off again.
  static void AddWords(Sums& sums, __m512i w, __m512i x) {
    const __m512i raised = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    sums = (Sums)_mm512_dpbusd_epi32((__m512i)sums, raised, x);
  }
  static Sum Single(Number w, Number x) { return int32_t{w} * x; }
  static Sum Offset(const Number* x, int64_t count) {
    int32_t sum = 0;
    for (int64_t i = 0; i < count; ++i) sum -= 128 * x[i];
    return sum;
  }
};
#endif

// y [N, out] at R outputs: of w [R, in] and x [N, in].
template <typename Kind, int R, int N, typename Result>
void Tile(const typename Kind::Number* w, const typename Kind::Number* x,
          const typename Kind::Sum* offsets, Result* y, int64_t in, int64_t out) {
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
      Narrowed(sum, y + n * out + r);
    }
  }
}

template <typename Kind, int R, typename Result>
void Outputs(const typename Kind::Number* w, const typename Kind::Number* x,
             const typename Kind::Sum* offsets, Result* y, int64_t rows, int64_t in, int64_t out) {
  int64_t n = 0;
  for (; n + 4 <= rows; n += 4) Tile<Kind, R, 4>(w, x + n * in, offsets + n, y + n * out, in, out);
  for (; n + 2 <= rows; n += 2) Tile<Kind, R, 2>(w, x + n * in, offsets + n, y + n * out, in, out);
  for (; n < rows; ++n) Tile<Kind, R, 1>(w, x + n * in, offsets + n, y + n * out, in, out);
}

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
// each 16 are written. What is missing is 0. Whether there is any other word.
bool Pack(const void* from, int64_t rows, int64_t bytes, uint32_t* to, int64_t width, int kept) {
  __m512i any = _mm512_setzero_si512();
  for (int64_t at = 0; at < bytes; at += 64) {
    const __mmask64 mask = bytes - at < 64 ? (__mmask64{1} << (bytes - at)) - 1 : ~__mmask64{0};
    __m512i words[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const char* row = static_cast<const char*>(from) + i * bytes + at;
      words[i] = i < rows ? _mm512_maskz_loadu_epi8(mask, row) : _mm512_setzero_si512();
      any = _mm512_or_si512(any, words[i]);
    }
    Transpose(words);
    for (int i = 0; i < kLanes; ++i) {
      _mm512_mask_storeu_epi32(to + (at / 4 + i) * width, (1 << kept) - 1, words[i]);
    }
  }
  return _mm512_test_epi32_mask(any, any);
}

#if WORDS

// Products of many rows. Lanes are rows of x, and words of w are broadcast; both are first copied in
// the order in which they are read. Where 32 rows are zeros, which fill a prompt up, so is the result.

constexpr int64_t kMost = 16;          // rows that are not many
constexpr int kPanel = 32;             // rows of x at a time
constexpr int kTile = 12, kTiles = 2;  // outputs at a time, and how often before the next panel

// y [kPanel, kTile] of packed w and x. Meanwhile what follows from `next` to `end` comes from memory.
template <typename Kind>
void Block(const uint32_t* w, const uint32_t* x, int64_t words, const char*& next, const char* end,
           typename Kind::Sums (&sums)[kTile][kPanel / kLanes]) {
  constexpr int kRegisters = kPanel / kLanes;
  typename Kind::Sums own[kTile][kRegisters] = {};
  for (int64_t some = 0; some < words; some += kLanes) {
    for (int i = 0; i < 2 && next < end; ++i, next += 64) __builtin_prefetch(next, 0, 2);
    for (int64_t k = some; k < some + kLanes; ++k) {
      for (int r = 0; r < kTile; ++r) {
        const __m512i word = _mm512_set1_epi32(w[k * kTile + r]);
        for (int i = 0; i < kRegisters; ++i) {
          Kind::AddWords(own[r][i], word, Read<__m512i>(x + k * kPanel + i * kLanes));
        }
      }
    }
  }
  std::memcpy(sums, own, sizeof(own));
}

template <typename Kind, typename Result>
void Many(ffi::ThreadPool& pool, const typename Kind::Number* w, const typename Kind::Number* x,
          Result* y, int64_t rows, int64_t in, int64_t out) {
  const int64_t bytes = in * sizeof(*w), words = (bytes + 63) / 64 * kLanes;
  const int64_t panels = (rows + kPanel - 1) / kPanel;
  static thread_local std::vector<uint32_t> packed;  // kept: new memory is slow
  packed.resize(std::max<size_t>(packed.size(), panels * kPanel * words));
  uint32_t* xs = packed.data();
  std::vector<typename Kind::Sum> offsets(panels * kPanel);
  std::vector<char> filled(panels);  // whether a panel has a number that is not 0
  Share(pool, panels, [&](int64_t panel) {
    for (int64_t n = panel * kPanel; n < (panel + 1) * kPanel; n += kLanes) {
      uint32_t* to = xs + panel * kPanel * words + n % kPanel;
      filled[panel] |= Pack(x + n * in, rows - n, bytes, to, kPanel, kLanes);
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
    // Most likely this thread's next part.
    const int64_t later = std::min(out, begin + pool.num_threads() * kTile * kTiles);
    const auto* next = reinterpret_cast<const char*>(w + later * in);
    const auto* last = reinterpret_cast<const char*>(w + std::min(out, later + kTile * kTiles) * in);
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t o = begin; o < end; o += kTile) {
        typename Kind::Sums sums[kTile][kPanel / kLanes] = {};
        if (filled[panel]) {
          Block<Kind>(&own[(o - begin) * words], xs + panel * kPanel * words, words, next, last,
                      sums);
        }
        for (int i = 0; i < kPanel / kLanes; ++i) {
          const int64_t n = panel * kPanel + i * kLanes;
          __m512i found[kLanes] = {};  // of a row of x each
          for (int r = 0; r < kTile; ++r) found[r] = (__m512i)sums[r][i];
          Transpose(found);
          for (int r = 0; r < std::min<int64_t>(kLanes, rows - n); ++r) {
            const auto sum = (typename Kind::Sums)found[r] + offsets[n + r];
            Put((__m512)sum, y + (n + r) * out + o, First(std::min<int64_t>(kTile, end - o)));
          }
        }
      }
    }
  });
}

#endif

template <typename Kind, ffi::DataType kFound>
ffi::Error Product(ffi::ThreadPool pool, ffi::BufferR2<Kind::kGiven> x,
                   ffi::BufferR2<Kind::kGiven> w, ffi::ResultBufferR2<kFound> y) {
  using Number = typename Kind::Number;
  constexpr int64_t kTall = 8;  // outputs at once
  const int64_t rows = x.dimensions()[0], in = x.dimensions()[1], out = w.dimensions()[0];
  const auto* xs = static_cast<const Number*>(x.untyped_data());
  const auto* ws = static_cast<const Number*>(w.untyped_data());
  using Result = std::conditional_t<kFound == ffi::BF16, uint16_t, typename Kind::Sum>;
  auto* ys = static_cast<Result*>(y->untyped_data());
#if WORDS
  if (rows > kMost) {
    Many<Kind>(pool, ws, xs, ys, rows, in, out);
    return ffi::Error::Success();
  }
#endif
  const int64_t bytes = std::max<int64_t>(1, in * sizeof(Number));
  const int64_t share = kTall * std::max<int64_t>(1, kShare / (kTall * bytes));
  constexpr int64_t kWhole = 64 / sizeof(Number);
  std::vector<typename Kind::Sum> offsets(rows);
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

template <typename Number>
float Dot(const float* a, const Number* b, int64_t size) {
  Floats sums = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = First(size - i);
    sums += (Floats)Wide(a + i, mask) * (Floats)Wide(b + i, mask);
  }
  return Total(sums);
}

// What one query [size] finds in the first `seen` of keys and values [S, size]. At least one is.
template <typename Number>
void FoundByOne(const float* query, const Number* keys, const Number* values, int64_t seen,
                int64_t size, Number* y) {
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  std::vector<float> weights(seen), sum(Up(size, kLanes));
  float top = -INFINITY, total = 0;
  for (int64_t s = 0; s < seen; ++s) {
    weights[s] = Dot(query, keys + s * size, size) * scale;
    top = std::max(top, weights[s]);
  }
  for (int64_t s = 0; s < seen; ++s) total += weights[s] = std::exp(weights[s] - top);
  for (int64_t s = 0; s < seen; ++s) {
    const float weight = weights[s] / total;
    const Number* value = values + s * size;
    for (int64_t i = 0; i < size; i += kLanes) {
      const auto more = (Floats)Wide(value + i, First(size - i)) * weight;
      Put((__m512)(Read<Floats>(&sum[i]) + more), &sum[i], First(kLanes));
    }
  }
  Copy(sum.data(), size, y);
}

// What many queries find, in words as `Kind` multiplies them.

constexpr int kQueries = 6, kColumns = 64;  // queries, and keys or numbers of a value, at a time

// out [kQueries, columns] = a [kQueries, depth] times b [depth, columns], at most kColumns; the rows
// of each lie so many words apart.
template <typename Kind>
void Rows(const uint32_t* a, int64_t a_step, const uint32_t* b, int64_t b_step, int64_t depth,
          int64_t columns, float* out, int64_t out_step) {
  constexpr int kRegisters = kColumns / kLanes;
  __mmask16 masks[kRegisters];
  for (int i = 0; i < kRegisters; ++i) masks[i] = First(columns - i * kLanes);
  Floats sums[kQueries][kRegisters] = {};
  for (int64_t k = 0; k < depth; ++k) {
    __m512i row[kRegisters];
    for (int i = 0; i < kRegisters; ++i) {
      row[i] = _mm512_maskz_loadu_epi32(masks[i], b + k * b_step + i * kLanes);
    }
    for (int n = 0; n < kQueries; ++n) {
      const __m512i word = _mm512_set1_epi32(Read<int32_t>(a + n * a_step + k));
      for (int i = 0; i < kRegisters; ++i) Kind::AddWords(sums[n][i], word, row[i]);
    }
  }
  Floats found[kQueries][kRegisters];
  std::memcpy(found, sums, sizeof(sums));  // or the sums are kept in memory
  for (int n = 0; n < kQueries; ++n) {
    for (int i = 0; i < kRegisters; ++i) {
      Put((__m512)found[n][i], out + n * out_step + i * kLanes, masks[i]);
    }
  }
}

// e to the x of numbers up to 0, to three units in the last place.
__m512 Exp(__m512 x) {
  constexpr float kCoefficients[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
  x = _mm512_max_ps(_mm512_set1_ps(-87), x);  // NaN stays
  const __m512 twos = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  x = _mm512_fnmadd_ps(twos, _mm512_set1_ps(0.693145752f), x);
  x = _mm512_fnmadd_ps(twos, _mm512_set1_ps(1.42860677e-6f), x);
  __m512 y = _mm512_setzero_ps();
  for (float coefficient : kCoefficients) y = _mm512_fmadd_ps(y, x, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(y, twos);
}

// The shares of scores times `scale` before the division by their sum, which is the result: of the
// first `seen`; up to `count`, a multiple of 16, the others are 0.
template <typename Number>
float Shares(const float* scores, float scale, int64_t seen, int64_t count, Number* shares) {
  __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
  for (int64_t i = 0; i < seen; i += kLanes) {
    top = _mm512_mask_max_ps(top, First(seen - i), top, _mm512_loadu_ps(scores + i));
  }
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(top));
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512 below = _mm512_sub_ps(_mm512_loadu_ps(scores + i), largest);
    const __m512 share = Exp(_mm512_mul_ps(below, _mm512_set1_ps(scale)));
    const __m512 own = _mm512_maskz_mov_ps(First(seen - i), share);
    Put(own, shares + i, First(kLanes));
    total = _mm512_add_ps(total, own);
  }
  return _mm512_reduce_add_ps(total);
}

// At least so many of a thread's own, which it keeps: new memory is slow.
template <typename Number>
Number* Room(std::vector<Number>& kept, int64_t count) {
  if (static_cast<int64_t>(kept.size()) < count) kept.resize(count);
  return kept.data();
}

// Two rows of `size` numbers as words: one number of each.
void Pair(const uint16_t* first, const uint16_t* second, int64_t size, uint32_t* to) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = First(size - i);
    const __m512i low = _mm512_srli_epi32((__m512i)Wide(first + i, mask), 16);
    const auto high = (__m512i)Wide(second ? second + i : first, second ? mask : 0);
    _mm512_mask_storeu_epi32(to + i, mask, _mm512_or_si512(low, high));
  }
}

// What one head's queries find in the first seen[i] <= S of its keys and values [S, size]: 0 where that
// is none. Queries are `Up(size, 32)` numbers apart with zeros between, room for kQueries more behind
// them; y lies `step` apart.
template <typename Kind, typename Result>
void Found(const typename Kind::Number* queries, const typename Kind::Number* keys,
           const typename Kind::Number* values, const std::vector<int64_t>& seen, int64_t size,
           int64_t step, Result* y) {
  using Number = typename Kind::Number;
  constexpr int64_t kWide = sizeof(uint32_t) / sizeof(Number);  // numbers of a word
  const int64_t count = seen.size(), most = *std::max_element(seen.begin(), seen.end());
  const int64_t deep = Up(size, 32) / kWide, length = Up(most, kColumns);
  const float scale = 1 / std::sqrt(static_cast<float>(size));
  static thread_local std::vector<uint32_t> key_words, value_words;
  static thread_local std::vector<float> score_room;
  static thread_local std::vector<Number> share_room;
  uint32_t* turned = Room(key_words, length * deep);
  float* scores = Room(score_room, kQueries * length);
  Number* shares = Room(share_room, kQueries * length);
  for (int64_t s = 0; s < length; s += kLanes) {
    uint32_t* to = turned + s / kColumns * kColumns * deep + s % kColumns;
    Pack(keys + s * size, most - s, size * sizeof(Number), to, kColumns, kLanes);
  }
  const auto* words = reinterpret_cast<const uint32_t*>(values);
  if constexpr (kWide == 2) {
    uint32_t* pairs = Room(value_words, Up(most, 2) / 2 * size);
    for (int64_t s = 0; s < most; s += 2) {
      const Number* value = values + s * size;
      Pair(value, s + 1 < most ? value + size : nullptr, size, pairs + s / 2 * size);
    }
    words = pairs;
  }
  float sums[kQueries * kColumns];
  for (int64_t first = 0; first < count; first += kQueries) {
    const int64_t some = std::min<int64_t>(kQueries, count - first);
    const int64_t end = *std::max_element(&seen[first], &seen[first] + some);
    const auto* query = reinterpret_cast<const uint32_t*>(queries + first * Up(size, 32));
    for (int64_t s = 0; s < end; s += kColumns) {
      const int64_t used = Up(size, kLanes * kWide) / kWide;
      Rows<Kind>(query, deep, turned + s * deep, kColumns, used, kColumns, scores + s, length);
    }
    float totals[kQueries];
    for (int64_t i = 0; i < some; ++i) {
      const int64_t here = i * length;
      totals[i] = Shares(scores + here, scale, seen[first + i], Up(end, kLanes), shares + here);
    }
    for (int64_t k = 0; k < size; k += kColumns) {
      const int64_t columns = std::min<int64_t>(kColumns, size - k);
      Rows<Kind>(reinterpret_cast<const uint32_t*>(shares), length / kWide, words + k, size,
                 Up(end, kWide) / kWide, columns, sums, kColumns);
      for (int64_t i = 0; i < some; ++i) {
        const __m512 total = _mm512_set1_ps(totals[i]);
        for (int64_t c = 0; c < columns; c += kLanes) {
          __m512 found = _mm512_div_ps(_mm512_loadu_ps(sums + i * kColumns + c), total);
          found = _mm512_maskz_mov_ps(seen[first + i] ? -1 : 0, found);
          Put(found, y + (first + i) * step + k + c, First(columns - c));
        }
      }
    }
  }
}

// What multiplies such numbers.
template <typename Number>
using KindOf = std::conditional_t<WORDS && sizeof(Number) == 2, BFloat16, Float32>;

// Attention to a cache of one head of one row; q, k, v and y [T, K] lie `across` and `step` numbers
// apart, cos and sin are [T, K / 2], keys and values [S, K].
template <typename Number>
void Head(const Number* q, const Number* k, const Number* v, const float* cos, const float* sin,
          const int32_t* places, Number* keys, Number* values, int64_t count, int64_t length,
          int64_t size, int64_t across, int64_t step, Number* y) {
  using Kind = KindOf<Number>;
  const int64_t half = size / 2, apart = Up(size, 32);
  const auto rotated = [&](const Number* from, int64_t t, auto* to) {
    for (int64_t i = 0; i < half; i += kLanes) {
      const __mmask16 mask = First(half - i);
      const __m512 a = Wide(from + i, mask), b = Wide(from + half + i, mask);
      const __m512 c = Wide(cos + t * half + i, mask), s = Wide(sin + t * half + i, mask);
      Number low[kLanes], high[kLanes];  // rounded, as `layers.rotate` does
      Put(_mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)), low, mask);
      Put(_mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)), high, mask);
      Put(Wide(low, mask), to + i, mask);
      Put(Wide(high, mask), to + half + i, mask);
    }
  };
  std::vector<int64_t> seen(count);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t place = places[t];
    if (place < 0 || place >= length) continue;  // it is nowhere, and sees nothing
    seen[t] = place + 1;
    rotated(k + t * across, t, keys + place * size);
    Copy(v + t * across, size, values + place * size);
  }
  if (count == 1 && seen[0]) {
    std::vector<float> query(size);
    rotated(q, 0, query.data());
    return FoundByOne(query.data(), keys, values, seen[0], size, y);
  }
  using Given = typename Kind::Number;
  static thread_local std::vector<Given> queries, wide_keys, wide_values;
  Given* turned = Room(queries, (count + kQueries) * apart);
  for (int64_t t = 0; t < count; ++t) {
    std::fill(turned + t * apart, turned + (t + 1) * apart, 0);
    rotated(q + t * across, t, turned + t * apart);
  }
  if constexpr (std::is_same_v<Given, Number>) {
    Found<Kind>(turned, keys, values, seen, size, step, y);
  } else {
    const int64_t most = *std::max_element(seen.begin(), seen.end()) * size;
    Copy(keys, most, Room(wide_keys, most));
    Copy(values, most, Room(wide_values, most));
    Found<Kind>(turned, wide_keys.data(), wide_values.data(), seen, size, step, y);
  }
}

// The same of a picture: all see all.
template <typename Number>
void HeadOfPicture(const Number* q, const Number* k, const Number* v, int64_t count, int64_t size,
                   int64_t step, Number* y) {
  using Kind = KindOf<Number>;
  const int64_t apart = Up(size, 32);
  static thread_local std::vector<typename Kind::Number> queries, keys, values;
  auto* query = Room(queries, (count + kQueries) * apart);
  auto* key = Room(keys, count * size);
  auto* value = Room(values, count * size);
  for (int64_t t = 0; t < count; ++t) {
    std::fill(query + t * apart, query + (t + 1) * apart, 0);
    Copy(q + t * step, size, query + t * apart);
    Copy(k + t * step, size, key + t * size);
    Copy(v + t * step, size, value + t * size);
  }
  Found<Kind>(query, key, value, std::vector<int64_t>(count, count), size, step, y);
}

template <typename F>
ffi::Error WithNumber(ffi::DataType type, bool fit, const F& f) {
  if (!fit) return ffi::Error::InvalidArgument("attention of arrays that do not fit together");
  if (type == ffi::BF16) {
    f(uint16_t{});
  } else if (type == ffi::F32) {
    f(float{});
  } else {
    return ffi::Error::InvalidArgument("attention of what is neither float32 nor bfloat16");
  }
  return ffi::Error::Success();
}

template <typename A, typename B>
bool Alike(const A& a, const B& b) {
  return a.element_type() == b.element_type() && a.dimensions() == b.dimensions();
}

// keys and values are those that come out, too.
ffi::Error Attention(ffi::ThreadPool pool, ffi::AnyBuffer qkv, ffi::Buffer<ffi::F32> cos,
                     ffi::Buffer<ffi::F32> sin, ffi::BufferR2<ffi::S32> places,
                     ffi::AnyBuffer keys, ffi::AnyBuffer, ffi::Result<ffi::AnyBuffer> y,
                     ffi::Result<ffi::AnyBuffer> new_keys, ffi::Result<ffi::AnyBuffer> new_values) {
  const auto shape = keys.dimensions();  // rows, heads, places, size
  if (shape.size() != 4) return ffi::Error::InvalidArgument("attention to a cache of other axes");
  const int64_t heads = shape[1], length = shape[2], size = shape[3], width = heads * size;
  const int64_t count = places.dimensions()[1], rows = shape[0] * count;
  const auto type = qkv.element_type(), kept = type == ffi::BF16 ? ffi::U16 : type;  // its bits
  const bool fit = places.dimensions()[0] == shape[0] && count && keys.element_type() == kept &&
                   Alike(keys, *new_keys) && Alike(keys, *new_values) &&
                   static_cast<int64_t>(qkv.element_count()) == rows * 3 * width &&
                   static_cast<int64_t>(cos.element_count()) == rows * (size / 2) &&
                   cos.element_count() == sin.element_count() && y->element_type() == type &&
                   3 * y->element_count() == qkv.element_count();
  return WithNumber(type, fit, [&](auto number) {
    using Number = decltype(number);
    Share(pool, shape[0] * heads, [&](int64_t part) {
      const int64_t row = part / heads, here = part % heads * size;
      const int64_t angles = row * count * (size / 2), cache = part * length * size;
      const auto* q =
          static_cast<const Number*>(qkv.untyped_data()) + row * count * 3 * width + here;
      Head(q, q + width, q + 2 * width, cos.typed_data() + angles, sin.typed_data() + angles,
           places.typed_data() + row * count,
           static_cast<Number*>(new_keys->untyped_data()) + cache,
           static_cast<Number*>(new_values->untyped_data()) + cache, count, length, size, 3 * width,
           width, static_cast<Number*>(y->untyped_data()) + row * count * width + here);
    });
  });
}

ffi::Error Pictures(ffi::ThreadPool pool, ffi::AnyBuffer q, ffi::AnyBuffer k, ffi::AnyBuffer v,
                    ffi::Result<ffi::AnyBuffer> y) {
  const auto shape = q.dimensions();  // pictures, tokens, heads, size
  const bool fit = Alike(q, k) && Alike(q, v) && Alike(q, *y) && shape.size() == 4 && shape[1];
  if (!fit) return WithNumber(q.element_type(), fit, [](auto) {});
  const int64_t count = shape[1], heads = shape[2], size = shape[3];
  return WithNumber(q.element_type(), fit, [&](auto number) {
    using Number = decltype(number);
    Share(pool, shape[0] * heads, [&](int64_t part) {
      const int64_t here = (part / heads * count * heads + part % heads) * size;
      const auto at = [&](const void* data) { return static_cast<const Number*>(data) + here; };
      HeadOfPicture(at(q.untyped_data()), at(k.untyped_data()), at(v.untyped_data()), count, size,
                    heads * size, static_cast<Number*>(y->untyped_data()) + here);
    });
  });
}

}  // namespace

#define PRODUCT(name, Kind, kFound)                                     \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, (Product<Kind, kFound>),          \
                                ffi::Ffi::Bind()                        \
                                    .Ctx<ffi::ThreadPool>()             \
                                    .Arg<ffi::BufferR2<Kind::kGiven>>() \
                                    .Arg<ffi::BufferR2<Kind::kGiven>>() \
                                    .Ret<ffi::BufferR2<kFound>>())

PRODUCT(product_float32, Float32, ffi::F32);
PRODUCT(product_bfloat16, BFloat16, ffi::F32);
PRODUCT(product_bfloat16_rounded, BFloat16, ffi::BF16);
#if WORDS
PRODUCT(product_int8, Int8, ffi::S32);
#endif

XLA_FFI_DEFINE_HANDLER_SYMBOL(attention, Attention,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()           // qkv
                                  .Arg<ffi::Buffer<ffi::F32>>()  // cos
                                  .Arg<ffi::Buffer<ffi::F32>>()  // sin
                                  .Arg<ffi::BufferR2<ffi::S32>>()  // places
                                  .Arg<ffi::AnyBuffer>()           // keys
                                  .Arg<ffi::AnyBuffer>()           // values
                                  .Ret<ffi::AnyBuffer>()           // y
                                  .Ret<ffi::AnyBuffer>()           // keys
                                  .Ret<ffi::AnyBuffer>());         // values

XLA_FFI_DEFINE_HANDLER_SYMBOL(pictures, Pictures,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()    // q
                                  .Arg<ffi::AnyBuffer>()    // k
                                  .Arg<ffi::AnyBuffer>()    // v
                                  .Ret<ffi::AnyBuffer>());  // y
