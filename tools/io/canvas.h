#pragma once
/// A small picture: rectangles and text in colour, written as a PNG.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace heed::tools {

struct Colour {
  uint8_t red, green, blue;
};
inline constexpr Colour white{255, 255, 255}, black{0, 0, 0}, ink{38, 40, 46}, faint{120, 124, 132};

/// Numbers in [0, 1] to colours: lightness rises evenly, so that equal steps look equal, in print and to colour-blind
/// eyes too; hue turns from violet over teal to yellow. (Below 0 and NaN: the lowest; above 1: the highest.)
Colour colour_of(double share);

class Canvas {
 public:
  Canvas(int width, int height, Colour background = white);

  int width() const { return width_; }
  int height() const { return height_; }

  /// Parts outside the picture are cut off.
  void fill(int x, int y, int width, int height, Colour colour);

  /// A pixel font, `scale` times as large as its capitals of 7 pixels; x and y are the upper left corner. ASCII; other
  /// bytes are '?'.
  void text(int x, int y, const std::string& text, Colour colour = ink, int scale = 2);
  /// The same upwards, turned left; x and y are the lower left corner.
  void text_up(int x, int y, const std::string& text, Colour colour = ink, int scale = 2);
  static int text_width(const std::string& text, int scale = 2);
  static constexpr int text_height(int scale = 2) { return 9 * scale; }

  /// Throws Error(machine); `path` then is as it was.
  void write_png(const std::filesystem::path& path) const;

 private:
  int width_, height_;
  std::vector<Colour> pixels_;
};

}  // namespace heed::tools
