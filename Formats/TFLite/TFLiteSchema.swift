import Tensors

/// Numbers of fields and codes in TensorFlow Lite's schema (`tensorflow/compiler/mlir/lite/schema/schema.fbs`, file
/// identifier `TFL3`). Fields are numbered in the order of the schema; a union counts twice, for its type and value.
enum TFLiteSchema {
  static let identifier = "TFL3"

  /// `table Model`
  enum Model: Int { case version = 0, operatorCodes, subgraphs, description, buffers }

  /// `table OperatorCode`; operators from 127 on have their number in `builtinCode` alone.
  enum OperatorCode: Int { case deprecatedBuiltinCode = 0, customCode, version, builtinCode }

  /// `table SubGraph`
  enum SubGraph: Int { case tensors = 0, inputs, outputs, operators, name }

  /// `table Tensor`
  enum Tensor: Int { case shape = 0, type, buffer, name, quantization, isVariable, sparsity, shapeSignature }

  /// `table QuantizationParameters`
  enum Quantization: Int { case min = 0, max, scale, zeroPoint, detailsType, details, quantizedDimension }

  /// `table Operator`
  enum Operator: Int { case opcodeIndex = 0, inputs, outputs, optionsType, options }

  /// `table Buffer`; `offset` and `size` are for data behind the buffers, in files above 2 GiB.
  enum Buffer: Int { case data = 0, offset, size }

  /// `table Conv2DOptions`
  enum Conv2D: Int { case padding = 0, strideW, strideH, activation, dilationW, dilationH }

  /// `table DepthwiseConv2DOptions`
  enum DepthwiseConv2D: Int { case padding = 0, strideW, strideH, depthMultiplier, activation, dilationW, dilationH }

  /// `table Pool2DOptions`
  enum Pool2D: Int { case padding = 0, strideW, strideH, filterWidth, filterHeight, activation }

  /// `table FullyConnectedOptions`
  enum FullyConnected: Int { case activation = 0, weightsFormat, keepNumDims, asymmetricInputs }

  /// `table TransposeConvOptions`
  enum TransposeConv: Int { case padding = 0, strideW, strideH, activation }

  /// `table SoftmaxOptions`
  enum Softmax: Int { case beta = 0 }

  /// `AddOptions`, `SubOptions`, `MulOptions`, `DivOptions`, `L2NormOptions`
  enum Arithmetic: Int { case activation = 0 }

  /// `table ConcatenationOptions`
  enum Concatenation: Int { case axis = 0, activation }

  /// `table ReshapeOptions`
  enum Reshape: Int { case newShape = 0 }

  /// `table SqueezeOptions`
  enum Squeeze: Int { case dims = 0 }

  /// `table ReducerOptions`
  enum Reducer: Int { case keepDims = 0 }

  /// `table StridedSliceOptions`
  enum StridedSlice: Int { case beginMask = 0, endMask, ellipsisMask, newAxisMask, shrinkAxisMask, offset }

  /// `table ResizeBilinearOptions`; its first two fields are no longer used.
  enum ResizeBilinear: Int { case alignCorners = 2, halfPixelCenters }

  /// `table ResizeNearestNeighborOptions`
  enum ResizeNearest: Int { case alignCorners = 0, halfPixelCenters }

  /// `table BatchMatMulOptions`
  enum BatchMatMul: Int { case adjX = 0, adjY }

  /// `table GatherOptions`
  enum Gather: Int { case axis = 0, batchDims }

  /// `table PackOptions`
  enum Pack: Int { case count = 0, axis }

  /// `table UnpackOptions`
  enum Unpack: Int { case count = 0, axis }

  /// `table LeakyReluOptions`
  enum LeakyReLU: Int { case alpha = 0 }

  /// `table GeluOptions`
  enum GELU: Int { case approximate = 0 }

  /// `table MirrorPadOptions`
  enum MirrorPad: Int { case mode = 0 }

  /// `SpaceToDepthOptions`, `DepthToSpaceOptions`
  enum Blocks: Int { case size = 0 }

  /// `enum ActivationFunctionType`
  enum Activation: Int8 { case none = 0, relu, reluN1To1, relu6, tanh, signBit }

  /// `enum TensorType`: the types that are read.
  static func element(_ type: Int8) -> DType? {
    switch type {
    case 0: .f32
    case 1: .f16
    case 2: .i32
    case 3: .u8
    case 4: .i64
    case 6: .bool
    case 7: .i16
    case 9: .i8
    case 10: .f64
    case 18: .bf16
    default: nil
    }
  }

  /// The names of `enum TensorType`, for messages.
  static let typeNames = [
    "FLOAT32", "FLOAT16", "INT32", "UINT8", "INT64", "STRING", "BOOL", "INT16", "COMPLEX64", "INT8", "FLOAT64",
    "COMPLEX128", "UINT64", "RESOURCE", "VARIANT", "UINT32", "UINT16", "INT4", "BFLOAT16",
  ]
}
