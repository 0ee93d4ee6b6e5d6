#include "tools/io/canvas.h"

#include <stb_easy_font.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "tools/error.h"
#include "tools/io/file.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

namespace heed::tools {
namespace {

/// One straight stroke of a letter, in font pixels.
struct Quad {
  float corners[4][4];  // x, y, z, colour
};

std::vector<Quad> quads_of(std::string text) {
  for (char& c : text)
    if (c < 32 || c > 126) c = '?';
  std::vector<Quad> quads(text.size() * 16 + 1);
  const int count =
      stb_easy_font_print(0, 0, text.data(), nullptr, quads.data(), static_cast<int>(quads.size() * sizeof(Quad)));
  quads.resize(static_cast<size_t>(count));
  return quads;
}

uint8_t to_srgb(double linear) {
  const double c = std::clamp(linear, 0.0, 1.0);
  return static_cast<uint8_t>(std::lround(255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * std::pow(c, 1 / 2.4) - 0.055)));
}

}  // namespace

Colour colour_of(double share) {
  const double t = share > 0 ? std::min(share, 1.0) : 0.0;
  // Oklab (Ottosson 2020, "A perceptual color space for image processing"), in polar form.
  const double lightness = 0.24 + 0.68 * t;
  // As strong as the screen's colours allow all along the way; beyond them the even steps would be lost.
  const double chroma = 0.097 + 0.1 * (t - 0.47) * (t - 0.47) * (1 + 1.2 * t);
  const double hue = (310 - 205 * t) * 3.14159265358979 / 180;
  const double a = chroma * std::cos(hue), b = chroma * std::sin(hue);
  const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
  const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
  const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
  return {to_srgb(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          to_srgb(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          to_srgb(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

Canvas::Canvas(int width, int height, Colour background)
    : width_(width), height_(height), pixels_(static_cast<size_t>(width) * static_cast<size_t>(height), background) {}

void Canvas::fill(int x, int y, int width, int height, Colour colour) {
  const int left = std::max(x, 0), right = std::min(x + width, width_);
  for (int row = std::max(y, 0); row < std::min(y + height, height_); ++row)
    for (int column = left; column < right; ++column)
      pixels_[static_cast<size_t>(row) * static_cast<size_t>(width_) + static_cast<size_t>(column)] = colour;
}

void Canvas::text(int x, int y, const std::string& text, Colour colour, int scale) {
  for (const Quad& quad : quads_of(text)) {
    const int left = static_cast<int>(quad.corners[0][0]), top = static_cast<int>(quad.corners[0][1]);
    const int right = static_cast<int>(quad.corners[2][0]), bottom = static_cast<int>(quad.corners[2][1]);
    fill(x + left * scale, y + top * scale, (right - left) * scale, (bottom - top) * scale, colour);
  }
}

void Canvas::text_up(int x, int y, const std::string& text, Colour colour, int scale) {
  for (const Quad& quad : quads_of(text)) {
    const int left = static_cast<int>(quad.corners[0][0]), top = static_cast<int>(quad.corners[0][1]);
    const int right = static_cast<int>(quad.corners[2][0]), bottom = static_cast<int>(quad.corners[2][1]);
    fill(x + top * scale, y - right * scale, (bottom - top) * scale, (right - left) * scale, colour);
  }
}

int Canvas::text_width(const std::string& text, int scale) {
  std::string copy = text;
  for (char& c : copy)
    if (c < 32 || c > 126) c = '?';
  return stb_easy_font_width(copy.data()) * scale;
}

void Canvas::write_png(const std::filesystem::path& path) const {
  std::vector<std::byte> bytes;
  const auto append = [](void* context, void* data, int size) {
    auto& to = *static_cast<std::vector<std::byte>*>(context);
    const auto part = std::span(static_cast<const std::byte*>(data), static_cast<size_t>(size));
    to.insert(to.end(), part.begin(), part.end());
  };
  if (stbi_write_png_to_func(append, &bytes, width_, height_, 3, pixels_.data(), 3 * width_) == 0)
    throw Error(Fault::machine, "cannot make the picture " + path.string());
  write_file(path, bytes);
}

}  // namespace heed::tools
