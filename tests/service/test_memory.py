from __future__ import annotations

import asyncio

import pytest

from service.memory import Claim, DecodingMemory, NoRoom


def test_claims_add_up_and_are_given_back() -> None:
    async def main() -> None:
        memory = DecodingMemory(100)
        one, two = Claim(memory), Claim(memory)
        one.grow(40)
        one.grow(30)  # holds more already
        two.grow(54)
        with pytest.raises(NoRoom):
            one.grow(41)
        assert memory.used == 94 and one.bytes == 40
        memory.release(two)
        one.grow(1000)  # more than there is for large ones is all that there is for them
        assert memory.used == 94
        memory.release(one)
        assert memory.used == 0

    asyncio.run(main())


def test_large_claims_leave_room_for_small_ones() -> None:
    async def main() -> None:
        memory = DecodingMemory(160)
        large = [Claim(memory) for _ in range(2)]
        large[0].grow(80)
        large[1].grow(70)
        waiting = asyncio.create_task(memory.wait_for(80))
        await asyncio.sleep(0)
        small, medium = Claim(memory), Claim(memory)
        with pytest.raises(NoRoom):
            medium.grow(11)
        small.grow(6)
        with pytest.raises(NoRoom):
            medium.grow(5)  # of small ones, too, there is an end
        assert not waiting.done() and memory.used == 156
        memory.release(small)
        memory.release(large[0])
        assert (await asyncio.wait_for(waiting, 60)).bytes == 80
        for claim in (large[1], waiting.result()):
            memory.release(claim)
        assert memory.used == 0

    asyncio.run(main())


def test_those_that_wait_come_in_their_order() -> None:
    async def main() -> None:
        memory = DecodingMemory(100)
        first = Claim(memory)
        first.grow(80)
        waiting = [asyncio.create_task(memory.wait_for(n)) for n in (90, 50, 30)]
        await asyncio.sleep(0)
        late, small = Claim(memory), Claim(memory)
        with pytest.raises(NoRoom):
            late.grow(10)  # there is room, but others have waited longer
        small.grow(5)
        memory.release(first)
        memory.release(small)
        assert (await waiting[0]).bytes == 90 and not waiting[1].done()
        waiting[1].cancel()  # whoever leaves is passed over
        await asyncio.sleep(0)
        memory.release(waiting[0].result())
        assert (await waiting[2]).bytes == 30
        memory.release(waiting[2].result())
        assert memory.used == 0

    asyncio.run(main())


def test_one_that_leaves_when_its_turn_has_come_gives_it_back() -> None:
    async def main() -> None:
        memory = DecodingMemory(100)
        first = Claim(memory)
        first.grow(80)
        waiting = asyncio.create_task(memory.wait_for(90))
        await asyncio.sleep(0)
        memory.release(first)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert memory.used == 0

    asyncio.run(main())
