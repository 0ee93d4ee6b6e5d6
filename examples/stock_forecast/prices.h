/* What the stock example needs besides heed, for C and C++: prices, and the forecasts to beat. */
#ifndef PRICES_H
#define PRICES_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/common/files.h"

enum { days = 5, largest_batch = 64, most_prices = 16384 };

struct prices {
  int count;
  char date[most_prices][11];
  float close[most_prices];
  float forecast[most_prices]; /* for the day of the same index */
};

/* Lines "date,close" after a header. */
static void read_prices(const char* path, struct prices* prices) {
  FILE* file = fopen(path, "r");
  if (file == NULL) fail("cannot be opened", path);
  char line[128];
  prices->count = 0;
  while (fgets(line, sizeof line, file) != NULL) {
    char date[11];
    float close;
    if (sscanf(line, "%10[0-9-],%f", date, &close) != 2) continue;
    if (prices->count == most_prices) fail("more lines than `most_prices`", path);
    memcpy(prices->date[prices->count], date, sizeof date);
    prices->close[prices->count++] = close;
  }
  fclose(file);
  if (prices->count < 10 * days) fail("too few lines \"date,close\"", path);
}

/* The first day of the last fifth: the models have seen nothing from here on. */
static int first_test_day(const struct prices* prices) {
  return prices->count * 4 / 5;
}

/* Least squares on the five prices, scaled like the models' by the window's minimum and maximum; fitted by train.py to
 * the training years of sp500.csv, whatever prices it is used on. */
static float linear_fit(const float* window) {
  static const float weights[days] = {0.038118f, -0.025961f, 0.067514f, -0.004012f, 0.977611f}, bias = -0.011100f;
  float low = window[0], high = window[0], sum = bias;
  for (int i = 1; i < days; ++i) low = fminf(low, window[i]), high = fmaxf(high, window[i]);
  const float span = fmaxf(high - low, 0.01f);
  for (int i = 0; i < days; ++i) sum += weights[i] * (window[i] - low) / span;
  return low + span * sum;
}

static void print_error(const char* name, const struct prices* prices, const float* forecast) {
  const int first = first_test_day(prices), count = prices->count - first;
  double absolute = 0, square = 0;
  for (int i = first; i < prices->count; ++i) {
    const double error = forecast[i] - prices->close[i];
    absolute += fabs(error) / count, square += error * error / count;
  }
  printf("  %-26s%9.2f%9.2f\n", name, absolute, sqrt(square));
}

/* The last days with the model's forecast, and its error beside those of the two simplest forecasts. */
static void print_forecasts(struct prices* prices) {
  static float today[most_prices], line[most_prices];
  for (int i = days; i < prices->count; ++i) {
    today[i] = prices->close[i - 1];
    line[i] = linear_fit(prices->close + i - days);
  }
  printf("day           price  forecast   (dollars)\n");
  for (int i = prices->count - 5; i < prices->count; ++i)
    printf("%s %8.2f  %8.2f\n", prices->date[i], prices->close[i], prices->forecast[i]);
  printf("%d test days, error in dollars  mean     rms\n", prices->count - first_test_day(prices));
  print_error("model", prices, prices->forecast);
  print_error("tomorrow is like today", prices, today);
  print_error("linear fit to the S&P 500", prices, line);
}

static void write_forecasts(const char* path, const struct prices* prices) {
  FILE* file = fopen(path, "w");
  if (file == NULL) fail("cannot be written", path);
  fprintf(file, "date,close,forecast\n");
  for (int i = first_test_day(prices); i < prices->count; ++i)
    fprintf(file, "%s,%.2f,%.4f\n", prices->date[i], prices->close[i], prices->forecast[i]);
  close_written(file, path);
}

#endif
