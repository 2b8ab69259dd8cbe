-- KEYS: job, then the model's queues. ARGV: group, ms of waiting that count as one level, index of the job's queue.
-- Returns {jobs waiting ahead, row-steps left of all jobs ahead, row-steps left of its own, the job's hash}: the hash and the
-- place are of one moment. Nothing is ahead of a job that runs; -1 jobs are ahead of one that has ended.
local facts = redis.call('HGETALL', KEYS[1])
local state, entry = unpack(redis.call('HMGET', KEYS[1], 'state', 'entry'))
local own = math.max(0, number('work') - number('done'))
if state ~= 'queued' then
  return {state == 'running' and 0 or -1, 0, own, facts}
end
local queues, group, aging = {unpack(KEYS, 2)}, ARGV[1], tonumber(ARGV[2])
local own_index = tonumber(ARGV[3])
local height = level(own_index, entry, aging)
local was_begun = not is_before(last_delivered(queues[own_index], group) or '0-0', entry)
local ms, seq = parts(entry)

-- The first id of a millisecond, which may lie before all time.
local function id_at(time)
  return time <= 0 and '0-1' or string.format('%.0f-0', time)
end

-- New jobs of a queue are ahead up to this id: those of a lower level, and the older ones of the same.
local function bound_of(index)
  if index == own_index then
    return entry
  elseif index < height then
    return '+'
  end
  -- Entries of two streams may have the same id.
  local older = ms .. '-' .. (index < own_index and seq + 1 or seq)
  local same = index == height and older or id_at(now - (index - height) * aging + 1)
  local bound = is_before(same, older) and same or older
  local lower = id_at(now - (index - height + 1) * aging + 1)
  return height > 1 and is_before(bound, lower) and lower or bound
end

local waiting, ahead = 0, 0
for index, queue in ipairs(queues) do
  local delivered, pending = last_delivered(queue, group)
  delivered = delivered or '0-0'
  each_begun(queue, delivered, function(_, other, work, is_waiting)
    local is_own = other == entry and index == own_index
    local is_older = is_before(other, entry) or (other == entry and index < own_index)
    if not is_own and (not was_begun or not is_waiting or is_older) then
      ahead = ahead + work
      waiting = waiting + (is_waiting and 1 or 0)
    end
  end)
  if not was_begun then
    local count, work = new_before(queue, delivered, pending, bound_of(index))
    waiting, ahead = waiting + count, ahead + work
  end
end
return {waiting, ahead, own, facts}
