"""Networks whose axes differ: text lines and spectrograms, where one axis is flattened and the other is free."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from field_examples import Collection, conv_bn, data

SPECTROGRAMS = Collection()


class TextTrunk(nn.Sequential):
    """Convolutions and poolings of a text recogniser: the last poolings keep the width."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2)]
        layers += [nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d(2, 2)]
        layers += [nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(True), nn.MaxPool2d((2, 2), (2, 1), (0, 1))]
        layers += [nn.Conv2d(8, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(True), nn.MaxPool2d((2, 1), (2, 1))]
        super().__init__(*layers)


class BidirectionalLSTM(nn.Module):
    """A recurrent layer over time first, and a linear layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn, self.embedding = nn.LSTM(inputs, hidden, bidirectional=True), nn.Linear(hidden * 2, outputs)

    def forward(self, input: Tensor) -> Tensor:
        recurrent, _ = self.rnn(input)
        t, b, h = recurrent.size()
        return self.embedding(recurrent.view(t * b, h)).view(t, b, -1)


@SPECTROGRAMS.add("crnn_one_row", "sequence", (2, 1, 32, 64), (2, 1, 32, 100))
class CRNN(nn.Module):
    """Asserts that one row is left, and squeezes it away."""

    def __init__(self) -> None:
        super().__init__()
        last = [nn.Conv2d(16, 16, 2, 1, 0), nn.ReLU(True)]
        self.cnn, self.rnn = nn.Sequential(TextTrunk(), *last), BidirectionalLSTM(16, 8, 11)

    def forward(self, input: Tensor) -> Tensor:
        conv = self.cnn(input)
        _, _, h, _ = conv.size()
        assert h == 1, "the height of conv must be 1"
        conv = conv.squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.rnn(conv), dim=2)


@SPECTROGRAMS.add("crnn_rows", "sequence", (2, 1, 32, 64), (2, 1, 32, 100))
class RowsCRNN(nn.Module):
    """Flattens the rows that are left into the features of a column."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn, self.map_to_seq = TextTrunk(), nn.Linear(16 * 2, 16)
        self.rnn1, self.rnn2 = nn.LSTM(16, 8, bidirectional=True), nn.LSTM(16, 8, bidirectional=True)
        self.dense = nn.Linear(16, 11)

    def forward(self, images: Tensor) -> Tensor:
        conv = self.cnn(images)
        batch, channel, height, width = conv.size()
        conv = conv.view(batch, channel * height, width).permute(2, 0, 1)
        recurrent, _ = self.rnn1(self.map_to_seq(conv))
        recurrent, _ = self.rnn2(recurrent)
        return self.dense(recurrent)


@SPECTROGRAMS.add("free_time_axis", "sequence", (2, 1, 40, 60), (2, 1, 40, 100))
class FreeTime(nn.Module):
    """Two strides in frequency, one in time; frequency is flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=(2, 1), padding=1)
        self.linear = nn.Linear(8 * 10, 20)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.linear(x.permute(0, 3, 1, 2).flatten(2))


def utterances(frames: int) -> tuple[Tensor, Tensor]:
    """Spectrograms and how many of their frames are sound."""
    return data(2, 1, 40, frames), torch.tensor([frames, frames - 12])


@SPECTROGRAMS.add("deep_speech", "sequence", lambda: utterances(60), lambda: utterances(100))
class DeepSpeech(nn.Module):
    """Masks after each layer; the lengths of the outputs follow from the attributes of the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, 8, (11, 5), stride=(2, 2), padding=(5, 2))
        second = nn.Conv2d(8, 8, (7, 5), stride=(2, 1), padding=(3, 2))
        norms = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv = nn.Sequential(first, norms[0], nn.Hardtanh(0, 20, True), second, norms[1], nn.Hardtanh(0, 20, True))
        self.rnn, self.fc = nn.GRU(80, 16), nn.Linear(16, 29)

    def get_seq_lens(self, lengths: Tensor) -> Tensor:
        """What the formula of a convolution gives for each length."""
        for m in self.conv.modules():
            if isinstance(m, nn.Conv2d):
                reach = m.dilation[1] * (m.kernel_size[1] - 1)
                lengths = (lengths + 2 * m.padding[1] - reach - 1) // m.stride[1] + 1
        return lengths.int()

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        output_lengths = self.get_seq_lens(lengths.cpu().int())
        for module in self.conv:
            x = module(x)
            mask = torch.zeros(x.size(), dtype=torch.bool)
            for i, length in enumerate(output_lengths.tolist()):
                if mask[i].size(2) - length > 0:
                    mask[i].narrow(2, length, mask[i].size(2) - length).fill_(1)
            x = x.masked_fill(mask, 0)
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3]).transpose(1, 2).transpose(0, 1).contiguous()
        packed = nn.utils.rnn.pack_padded_sequence(x, output_lengths, enforce_sorted=False)
        x, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])
        return self.fc(x).transpose(0, 1), output_lengths


class PannBlock(nn.Module):
    """Is told at each call how to pool."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, input: Tensor, pool_size: Any = (2, 2), pool_type: str = "avg") -> Tensor:
        x = F.relu_(self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(input))))))
        if pool_type == "max":
            x = F.max_pool2d(x, kernel_size=pool_size)
        elif pool_type == "avg":
            x = F.avg_pool2d(x, kernel_size=pool_size)
        elif pool_type == "avg+max":
            x = F.avg_pool2d(x, kernel_size=pool_size) + F.max_pool2d(x, kernel_size=pool_size)
        else:
            raise ValueError("pool_type is none of avg, max, avg+max")
        return x


@SPECTROGRAMS.add("cnn14", "classifier", (2, 1, 64, 32), (2, 1, 96, 32))
class Cnn14(nn.Module):
    """Sound events: mean over frequency, then mean and maximum over time; a norm over the frequency bins at first."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(32)
        self.conv_block1, self.conv_block2 = PannBlock(1, 8), PannBlock(8, 8)
        self.conv_block3, self.conv_block4 = PannBlock(8, 16), PannBlock(16, 16)
        self.fc1, self.fc_audioset = nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, input: Tensor, mixup_lambda: Tensor | None = None) -> dict[str, Tensor]:
        x = self.bn0(input.transpose(1, 3)).transpose(1, 3)
        if self.training and mixup_lambda is not None:
            x = x * mixup_lambda
        x = self.conv_block1(x, pool_size=(2, 2), pool_type="avg")
        x = F.dropout(x, p=0.2, training=self.training)
        x = self.conv_block2(x, pool_size=(2, 2), pool_type="avg+max")
        x = self.conv_block3(x, pool_size=(2, 2), pool_type="max")
        x = self.conv_block4(x, pool_size=(1, 1), pool_type="avg")
        x = torch.mean(x, dim=3)
        x1, _ = torch.max(x, dim=2)
        x = F.relu_(self.fc1(x1 + torch.mean(x, dim=2)))
        return {"clipwise_output": torch.sigmoid(self.fc_audioset(x)), "embedding": x}


@SPECTROGRAMS.add("convolutional_lstm", "classifier", (2, 6, 3, 32, 32), (2, 8, 3, 32, 32))
class FramesLSTM(nn.Module):
    """Frames are folded into the batch, flattened after convolutions, and read by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_bn(3, 8, 2), nn.MaxPool2d(2), conv_bn(8, 8, 2))
        self.lstm, self.fc = nn.LSTM(8 * 4 * 4, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, clip: Tensor) -> Tensor:
        b, t, c, h, w = clip.shape
        x = self.features(clip.reshape(b * t, c, h, w))
        out, (hidden, _) = self.lstm(x.reshape(b, t, -1))
        return self.fc(out[:, -1] + hidden[-1])


@SPECTROGRAMS.add("speech_transformer", "sequence", (2, 60, 40), (2, 100, 40))
class SubsampledTransformer(nn.Module):
    """Convolutions take every fourth frame before attention; the mask is sliced to the same length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.out = nn.Linear(8 * 9, 16)
        self.attention, self.norm = nn.MultiheadAttention(16, 2, batch_first=True), nn.LayerNorm(16)

    def forward(self, xs: Tensor) -> tuple[Tensor, Tensor]:
        masks = torch.ones(xs.size(0), 1, xs.size(1), dtype=torch.bool)
        x = self.conv(xs.unsqueeze(1))
        b, c, t, f = x.size()
        x = self.out(x.transpose(1, 2).contiguous().view(b, t, c * f))
        masks = masks[:, :, 2::2][:, :, 2::2]
        y, _ = self.attention(x, x, x, key_padding_mask=~masks.squeeze(1))
        return self.norm(x + y), masks


@SPECTROGRAMS.add("learned_filter_bank", "classifier", (2, 1, 3200), (2, 1, 4800))
class FilterBank(nn.Module):
    """Long filters at every 160th sample, their energy as a spectrogram, and convolutions over it."""

    def __init__(self) -> None:
        super().__init__()
        self.bank, self.norm = nn.Conv1d(1, 32, 250, stride=160, padding=125, bias=False), nn.InstanceNorm1d(32)
        self.conv1, self.conv2 = conv_bn(1, 8, 2), nn.Conv2d(8, 8, 3, stride=(2, 1), padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, sound: Tensor) -> Tensor:
        x = self.norm(torch.log1p(self.bank(sound).abs())).unsqueeze(1)
        return self.fc(F.relu(self.conv2(self.conv1(x))).mean((2, 3)))
