// What stands between the linear layers of the latent transformer's rollout in eight bits, each in one pass over its numbers.
// Numbers in bfloat16 are passed as their bits. HEADS, HEAD, WINDOW and WIDTH are given when this is compiled (native.py).

#include <cmath>
#include <cstdint>
#include <cstring>

using bfloat16 = uint16_t;
constexpr int INNER = HEADS * HEAD;
constexpr float EPS = 1e-6f;  // of the normalisation, as in transformer.py

static inline float real(bfloat16 bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

static inline bfloat16 rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bfloat16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

struct Range {  // of eight bits: real = (number - zero) / per_real
  float per_real, zero;

  uint8_t operator()(float value) const {
    const float at = value * per_real + (zero + 0.5f);
    return uint8_t(at < 0 ? 0 : at > 255 ? 255 : at);
  }
};

// One query of each head against its keys of `frames` frames. Rows of queries, keys and values lie `*_stride` numbers apart.
extern "C" void attend(const bfloat16* q, int64_t q_stride, const bfloat16* const* k, const bfloat16* const* v,
                       const int64_t* frame_strides, int frames, const float* bias, int64_t rows, float per_real, float zero,
                       uint8_t* out) {
  const Range range{per_real, zero};
  for (int64_t row = 0; row < rows; ++row) {
    float weight[WINDOW][HEADS], most[HEADS], total[HEADS] = {};
    for (int f = 0; f < frames; ++f) {
      const bfloat16 *query = q + row * q_stride, *key = k[f] + row * frame_strides[f];
      for (int h = 0; h < HEADS; ++h) {
        float sum = 0;
        for (int d = 0; d < HEAD; ++d) sum += real(query[h * HEAD + d]) * real(key[h * HEAD + d]);
        weight[f][h] = sum + bias[f * HEADS + h];
        most[h] = f == 0 || weight[f][h] > most[h] ? weight[f][h] : most[h];
      }
    }
    for (int f = 0; f < frames; ++f)
      for (int h = 0; h < HEADS; ++h) total[h] += weight[f][h] = std::exp(weight[f][h] - most[h]);
    for (int h = 0; h < HEADS; ++h) {
      float mixed[HEAD] = {};
      for (int f = 0; f < frames; ++f) {
        const bfloat16* value = v[f] + row * frame_strides[f] + h * HEAD;
        const float share = weight[f][h] / total[h];
        for (int d = 0; d < HEAD; ++d) mixed[d] += share * real(value[d]);
      }
      for (int d = 0; d < HEAD; ++d) out[row * INNER + h * HEAD + d] = range(mixed[d]);
    }
  }
}

// Adds `gate * added` to x where there is any, into `sum`; what comes out is its normalisation, scaled and shifted.
extern "C" void modulate(const bfloat16* x, int64_t x_stride, const bfloat16* gate, const bfloat16* added,
                         const bfloat16* scale, const bfloat16* shift, int64_t modulation_stride, int64_t rows, float per_real,
                         float zero, bfloat16* sum, uint8_t* out) {
  const Range range{per_real, zero};
  for (int64_t row = 0; row < rows; ++row) {
    float value[WIDTH], mean = 0, square = 0;
    const int64_t at = row * modulation_stride;
    for (int d = 0; d < WIDTH; ++d) value[d] = real(x[row * x_stride + d]);
    if (added) {
      for (int d = 0; d < WIDTH; ++d) {
        const bfloat16 whole = rounded(value[d] + real(gate[at + d]) * real(added[row * WIDTH + d]));
        sum[row * WIDTH + d] = whole;
        value[d] = real(whole);
      }
    }
    for (int d = 0; d < WIDTH; ++d) mean += value[d] / WIDTH;
    for (int d = 0; d < WIDTH; ++d) square += (value[d] - mean) * (value[d] - mean) / WIDTH;
    const float by = 1 / std::sqrt(square + EPS);
    for (int d = 0; d < WIDTH; ++d)
      out[row * WIDTH + d] = range((value[d] - mean) * by * real(scale[at + d]) + real(shift[at + d]));
  }
}
