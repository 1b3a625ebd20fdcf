/// Converts a row of numbers from one type to another.
///
/// - To a floating-point type: the nearest number, ties to even, with one rounding only. Overflow gives an infinity
///   (NaN for `f8e4m3`, which has none), NaN stays NaN.
/// - From a floating-point to an integer type: towards zero; values out of range give the nearest end of the range, NaN
///   gives 0.
/// - Between integers: modulo the width of the target.
/// - To `bool`: 1 if not equal to zero, so NaN gives 1. From `bool`: any byte but zero counts as 1.
///
/// The element count follows from the length of `source`; `destination` must hold as many. The two may be the same memory
/// only if the types are equal. No alignment is needed.
package func convertRow(
  _ source: UnsafeRawBufferPointer, _ from: DType, into destination: UnsafeMutableRawBufferPointer, _ to: DType
) {
  let count = source.count / from.byteCount
  precondition(destination.count >= count * to.byteCount, "a row needs room for \(count) numbers")
  guard count > 0, let input = source.baseAddress, let output = destination.baseAddress else { return }
  if from == to {
    output.copyMemory(from: input, byteCount: count * from.byteCount)
    return
  }
  switch (from, to) {
  case (_, .f32) where isExactInF32(from):
    widen(input, from, output.assumingMemoryBound(to: Float.self), count)
  case (.f32, .f16), (.f32, .bf16), (.f32, .f8e4m3), (.f32, .f8e5m2):
    narrow(input.assumingMemoryBound(to: Float.self), output, to, count)
  default:
    convertThroughScratch(input, from, output, to, count)
  }
}

/// A row of any type as f32, with one rounding.
package func floats(_ source: UnsafeRawBufferPointer, _ type: DType) -> [Float] {
  let count = source.count / type.byteCount
  return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
    convertRow(source, type, into: UnsafeMutableRawBufferPointer(buffer), .f32)
    initialized = count
  }
}

private let scratchCount = 512

private func isExactInF32(_ type: DType) -> Bool {
  switch type {
  case .f16, .bf16, .f8e4m3, .f8e5m2, .i16, .i8, .u8, .bool: true
  case .f64, .f32, .i64, .i32: false
  }
}

private func convertThroughScratch(
  _ source: UnsafeRawPointer, _ from: DType, _ destination: UnsafeMutableRawPointer, _ to: DType, _ count: Int
) {
  var done = 0
  withUnsafeTemporaryAllocation(of: Float.self, capacity: scratchCount) { floats in
    withUnsafeTemporaryAllocation(of: Double.self, capacity: scratchCount) { doubles in
      withUnsafeTemporaryAllocation(of: Int64.self, capacity: scratchCount) { integers in
        guard let floats = floats.baseAddress, let doubles = doubles.baseAddress, let integers = integers.baseAddress
        else { return }
        while done < count {
          let part = min(scratchCount, count - done)
          let input = source + done * from.byteCount
          let output = destination + done * to.byteCount
          if to.isFloat && to != .f64 && (from == .f32 || isExactInF32(from)) {
            widen(input, from, floats, part)
            narrow(floats, output, to, part)
          } else if to.isFloat {
            loadDoubles(input, from, doubles, part, toOdd: to != .f64)
            storeDoubles(doubles, output, to, part, floats)
          } else if from.isFloat {
            loadDoubles(input, from, doubles, part, toOdd: false)
            truncate(doubles, output, to, part)
          } else {
            loadIntegers(input, from, integers, part)
            storeIntegers(integers, output, to, part)
          }
          done += part
        }
      }
    }
  }
}

/// To f32 from f32 and every type whose numbers all are f32 numbers.
private func widen(_ source: UnsafeRawPointer, _ type: DType, _ output: UnsafeMutablePointer<Float>, _ count: Int) {
  switch type {
  case .f16:
    let input = source.assumingMemoryBound(to: UInt16.self)
    for i in 0..<count { output[i] = F16.value(input[i]) }
  case .bf16:
    let input = source.assumingMemoryBound(to: UInt16.self)
    for i in 0..<count { output[i] = BF16.value(input[i]) }
  case .f8e4m3:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = F8.e4m3Value(input[i]) }
  case .f8e5m2:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = F8.e5m2Value(input[i]) }
  case .i16:
    let input = source.assumingMemoryBound(to: Int16.self)
    for i in 0..<count { output[i] = Float(input[i]) }
  case .i8:
    let input = source.assumingMemoryBound(to: Int8.self)
    for i in 0..<count { output[i] = Float(input[i]) }
  case .u8:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = Float(input[i]) }
  case .bool:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = input[i] == 0 ? 0 : 1 }
  case .f32:
    output.update(from: source.assumingMemoryBound(to: Float.self), count: count)
  case .f64, .i64, .i32:
    preconditionFailure("\(type) has numbers that are no f32 numbers")
  }
}

/// From f32 to a floating-point type of at most 32 bits.
private func narrow(
  _ input: UnsafePointer<Float>, _ destination: UnsafeMutableRawPointer, _ type: DType, _ count: Int
) {
  switch type {
  case .f16:
    let output = destination.assumingMemoryBound(to: UInt16.self)
    for i in 0..<count { output[i] = F16.bits(input[i]) }
  case .bf16:
    let output = destination.assumingMemoryBound(to: UInt16.self)
    for i in 0..<count { output[i] = BF16.bits(input[i]) }
  case .f8e4m3:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = F8.e4m3Bits(input[i]) }
  case .f8e5m2:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = F8.e5m2Bits(input[i]) }
  case .f32:
    destination.assumingMemoryBound(to: Float.self).update(from: input, count: count)
  case .f64, .i64, .i32, .i16, .i8, .u8, .bool:
    preconditionFailure("\(type) is not narrower than f32")
  }
}

/// To f64. `toOdd` rounds large integers such that another rounding may follow.
private func loadDoubles(
  _ source: UnsafeRawPointer, _ type: DType, _ output: UnsafeMutablePointer<Double>, _ count: Int, toOdd: Bool
) {
  switch type {
  case .f64:
    output.update(from: source.assumingMemoryBound(to: Double.self), count: count)
  case .i64:
    let input = source.assumingMemoryBound(to: Int64.self)
    if toOdd {
      for i in 0..<count { output[i] = Double(roundingToOdd: input[i]) }
    } else {
      for i in 0..<count { output[i] = Double(input[i]) }
    }
  case .i32:
    let input = source.assumingMemoryBound(to: Int32.self)
    for i in 0..<count { output[i] = Double(input[i]) }
  case .f32:
    let input = source.assumingMemoryBound(to: Float.self)
    for i in 0..<count { output[i] = Double(input[i]) }
  case .f16, .bf16, .f8e4m3, .f8e5m2, .i16, .i8, .u8, .bool:
    withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { floats in
      guard let floats = floats.baseAddress else { return }
      widen(source, type, floats, count)
      for i in 0..<count { output[i] = Double(floats[i]) }
    }
  }
}

/// From f64 to a floating-point type; `floats` is scratch memory for `count` numbers.
private func storeDoubles(
  _ input: UnsafePointer<Double>, _ destination: UnsafeMutableRawPointer, _ type: DType, _ count: Int,
  _ floats: UnsafeMutablePointer<Float>
) {
  switch type {
  case .f64:
    destination.assumingMemoryBound(to: Double.self).update(from: input, count: count)
  case .f32:
    let output = destination.assumingMemoryBound(to: Float.self)
    for i in 0..<count { output[i] = Float(input[i]) }
  default:
    for i in 0..<count { floats[i] = Float(roundingToOdd: input[i]) }
    narrow(floats, destination, type, count)
  }
}

/// From f64 to an integer type or `bool`.
private func truncate(
  _ input: UnsafePointer<Double>, _ destination: UnsafeMutableRawPointer, _ type: DType, _ count: Int
) {
  @inline(__always) func clamped(_ value: Double, _ low: Double, _ high: Double) -> Double {
    // A comparison with NaN is false, so NaN becomes 0.
    value >= low ? (value <= high ? value : high) : (value < low ? low : 0)
  }
  switch type {
  case .i64:
    let output = destination.assumingMemoryBound(to: Int64.self)
    // The largest f64 number below 2^63 is no end of the range.
    for i in 0..<count {
      output[i] = input[i] >= 0x1p63 ? .max : Int64(clamped(input[i], -0x1p63, 0x1.fffffffffffffp62))
    }
  case .i32:
    let output = destination.assumingMemoryBound(to: Int32.self)
    for i in 0..<count { output[i] = Int32(clamped(input[i], -0x1p31, 0x1.fffffffcp30)) }
  case .i16:
    let output = destination.assumingMemoryBound(to: Int16.self)
    for i in 0..<count { output[i] = Int16(clamped(input[i], -32768, 32767)) }
  case .i8:
    let output = destination.assumingMemoryBound(to: Int8.self)
    for i in 0..<count { output[i] = Int8(clamped(input[i], -128, 127)) }
  case .u8:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = UInt8(clamped(input[i], 0, 255)) }
  case .bool:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = input[i] == 0 ? 0 : 1 }
  case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2:
    preconditionFailure("\(type) is no integer type")
  }
}

private func loadIntegers(
  _ source: UnsafeRawPointer, _ type: DType, _ output: UnsafeMutablePointer<Int64>, _ count: Int
) {
  switch type {
  case .i64:
    output.update(from: source.assumingMemoryBound(to: Int64.self), count: count)
  case .i32:
    let input = source.assumingMemoryBound(to: Int32.self)
    for i in 0..<count { output[i] = Int64(input[i]) }
  case .i16:
    let input = source.assumingMemoryBound(to: Int16.self)
    for i in 0..<count { output[i] = Int64(input[i]) }
  case .i8:
    let input = source.assumingMemoryBound(to: Int8.self)
    for i in 0..<count { output[i] = Int64(input[i]) }
  case .u8:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = Int64(input[i]) }
  case .bool:
    let input = source.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = input[i] == 0 ? 0 : 1 }
  case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2:
    preconditionFailure("\(type) is no integer type")
  }
}

private func storeIntegers(
  _ input: UnsafePointer<Int64>, _ destination: UnsafeMutableRawPointer, _ type: DType, _ count: Int
) {
  switch type {
  case .i64:
    destination.assumingMemoryBound(to: Int64.self).update(from: input, count: count)
  case .i32:
    let output = destination.assumingMemoryBound(to: Int32.self)
    for i in 0..<count { output[i] = Int32(truncatingIfNeeded: input[i]) }
  case .i16:
    let output = destination.assumingMemoryBound(to: Int16.self)
    for i in 0..<count { output[i] = Int16(truncatingIfNeeded: input[i]) }
  case .i8:
    let output = destination.assumingMemoryBound(to: Int8.self)
    for i in 0..<count { output[i] = Int8(truncatingIfNeeded: input[i]) }
  case .u8:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = UInt8(truncatingIfNeeded: input[i]) }
  case .bool:
    let output = destination.assumingMemoryBound(to: UInt8.self)
    for i in 0..<count { output[i] = input[i] == 0 ? 0 : 1 }
  case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2:
    preconditionFailure("\(type) is no integer type")
  }
}
